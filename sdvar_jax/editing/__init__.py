"""In-painting, out-painting and class-conditional editing by forcing tokens outside a mask."""

from sdvar_jax.editing.cells import kept_tokens, masked_share
from sdvar_jax.editing.edit import (
    EditResult,
    edit_class,
    edit_image,
    force_tokens,
    inpaint,
    outpaint,
)
from sdvar_jax.editing.frame import Frame, place_in_frame
from sdvar_jax.editing.regions import Box, composite, mask_of_image, softened

__all__ = [
    "Box",
    "EditResult",
    "Frame",
    "composite",
    "edit_class",
    "edit_image",
    "force_tokens",
    "inpaint",
    "kept_tokens",
    "mask_of_image",
    "masked_share",
    "outpaint",
    "place_in_frame",
    "softened",
]
