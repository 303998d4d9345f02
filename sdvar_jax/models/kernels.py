"""What can run a model's inference.

- ``REFERENCE``: plain JAX, on every device and in training;
- ``SCANNED``: the transformer's same sums in a loop over stacked blocks: a smaller program, for
  small models on a CPU, where compiling takes longer than running;
- ``FUSED``: kernels of the package (Pallas, through Triton), on NVIDIA GPUs in bfloat16 or float16;
- ``INTERPRETED``: these kernels without an accelerator, for tests.
"""

REFERENCE = "reference"
SCANNED = "scanned"
FUSED = "fused"
INTERPRETED = "interpreted"
AUTO = "auto"
KERNELS = (REFERENCE, SCANNED, FUSED, INTERPRETED)
