"""Pictures in and out: image files, labelled grids, strips of the image scale by scale."""

from sdvar_jax.imaging.comparison import comparison_grid
from sdvar_jax.imaging.files import load_image, save_png, to_uint8
from sdvar_jax.imaging.grid import image_grid
from sdvar_jax.imaging.strip import scale_strip

__all__ = [
    "comparison_grid",
    "image_grid",
    "load_image",
    "save_png",
    "scale_strip",
    "to_uint8",
]
