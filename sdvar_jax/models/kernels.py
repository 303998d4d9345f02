"""What can run a model's inference.

- ``REFERENCE``: plain JAX, on every device and in training;
- ``SCANNED``: the transformer's same sums in a loop over stacked blocks: a smaller program, for
  small models on a CPU, where compiling takes longer than running;
- ``FUSED``: kernels of the package (Pallas, through Triton or Mosaic), on NVIDIA GPUs in bfloat16
  or float16;
- ``INTERPRETED``: these kernels without an accelerator, for tests.
"""

REFERENCE = "reference"
SCANNED = "scanned"
FUSED = "fused"
INTERPRETED = "interpreted"
AUTO = "auto"
KERNELS = (REFERENCE, SCANNED, FUSED, INTERPRETED)

OWN = (FUSED, INTERPRETED)
"""Those that are the package's own."""

_LEAST_TILE = 16
"""Rows or columns of a tile that Triton multiplies, at least."""


def is_tile(size: int) -> bool:
    """Whether the package's kernels can take so many columns as one tile."""
    return size >= _LEAST_TILE and size & (size - 1) == 0
