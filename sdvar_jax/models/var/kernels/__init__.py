"""Fused kernels of the transformer's inference on GPUs (Pallas, through Triton).

``VAR.kernels`` chooses what runs the blocks over a KV cache:

- ``REFERENCE``: plain JAX, on every device and in training;
- ``SCANNED``: the same sums in a loop over stacked blocks: a smaller program, for small models on
  a CPU, where compiling takes longer than running;
- ``FUSED``: these kernels, on NVIDIA GPUs in bfloat16 or float16;
- ``INTERPRETED``: these kernels without an accelerator, for tests.
"""

REFERENCE = "reference"
SCANNED = "scanned"
FUSED = "fused"
INTERPRETED = "interpreted"
AUTO = "auto"
KERNELS = (REFERENCE, SCANNED, FUSED, INTERPRETED)
