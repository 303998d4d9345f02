"""Fused kernels of the transformer's inference on GPUs (Pallas, through Triton).

``VAR.kernels`` chooses what runs the blocks over a KV cache, see ``models.kernels``.
"""
