"""Measurements of speed and memory; run each as ``python -m benchmarks.NAME`` from a checkout."""
