"""Measuring samples: features, distances between sets of pictures, files for other tools."""
