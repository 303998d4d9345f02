"""Fused kernels of the VQVAE's decoder on GPUs: Pallas, through Triton or Mosaic."""
