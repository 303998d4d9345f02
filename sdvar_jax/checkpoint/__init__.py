"""Checkpoints on disk, and models built from arrays."""
