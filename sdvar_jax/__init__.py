"""VAR image generation in JAX and Flax, with speculative decoding at the level of scales."""
