"""Regions of an image: boxes and masks, True where the image is made anew."""

from __future__ import annotations

import dataclasses

import chex
import numpy as np

from sdvar_jax.config.validation import require


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the model's square image; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    def __post_init__(self) -> None:
        require(
            0 <= self.left < self.right and 0 <= self.top < self.bottom,
            f"a box is left, top, right, bottom with left < right and top < bottom, got {self}",
        )

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.right},{self.bottom}"

    def mask(self, side: int) -> np.ndarray:
        """True inside, bool [side, side].

        Raises:
          SdvarError: the box reaches outside the image.
        """
        require(
            self.right <= side and self.bottom <= side,
            f"the box {self} reaches outside the image of {side}x{side} pixels",
        )
        inside = np.zeros((side, side), bool)
        inside[self.top : self.bottom, self.left : self.right] = True
        return inside

    @classmethod
    def parse(cls, text: str, side: int) -> Box:
        """Reads "left,top,right,bottom": pixels, or percentages of the side as in "25%,0,75%,50%".

        Args:
          text: as the user typed it.
          side: of the model's image in pixels.

        Raises:
          SdvarError: it has another form, or it is no box within the image.
        """
        numbers = [_pixels(item.strip(), side, text) for item in text.split(",")]
        require(len(numbers) == 4, f"a box has four numbers, left,top,right,bottom; got {text!r}")
        box = cls(*numbers)
        box.mask(side)
        return box


def _pixels(item: str, side: int, text: str) -> int:
    number = item.removesuffix("%")
    try:
        value = float(number)
        return round(value * side / 100) if item.endswith("%") else int(number)
    except (ValueError, OverflowError):
        require(False, f"{item!r} in the box {text!r} is neither whole pixels nor a percentage")
        raise


def mask_of_image(image: chex.ArrayNumpy) -> np.ndarray:
    """A mask drawn as a picture [side, side, 3] in [0, 1]: True where it is more white than black.

    Returns:
      bool [side, side].
    """
    chex.assert_shape(image, (None, None, 3))
    return np.asarray(image, np.float32).mean(axis=-1) > 0.5


def softened(mask: np.ndarray, feather: int) -> np.ndarray:
    """Weights of the new pixels: 0 outside the mask, rising to 1 ``feather`` pixels inside it.

    What lies outside the mask is never touched, however soft the seam. The image's border is no
    seam.

    Args:
      mask: bool [side, side].
      feather: width of the seam in pixels; 0 is a hard edge.

    Returns:
      float32 [side, side] in [0, 1].
    """
    require(feather >= 0, f"feather must not be negative, got {feather}")
    inside, total = mask, mask.astype(np.float32)
    for _ in range(feather):
        padded = np.pad(inside, 1, mode="edge")
        rows = padded[:-2] & padded[1:-1] & padded[2:]  # [side, side + 2]
        inside = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
        total += inside
    return total / np.float32(feather + 1)


def composite(
    original: chex.ArrayNumpy, edited: chex.ArrayNumpy, mask: np.ndarray, feather: int = 0
) -> np.ndarray:
    """The edited image inside the mask, the original's own pixels outside.

    Args:
      original: [side, side, 3].
      edited: [batch, side, side, 3].
      mask: bool [side, side], True where the edited image counts.
      feather: see ``softened``.

    Returns:
      float32 [batch, side, side, 3].
    """
    chex.assert_rank([original, edited], [3, 4])
    chex.assert_equal_shape([original, edited[0]])
    weight = softened(mask, feather)[None, :, :, None]
    return (weight * edited + (1 - weight) * original[None]).astype(np.float32)
