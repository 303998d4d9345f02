"""From SVG to pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from sdvar_jax.errors import SdvarError


def require_renderer() -> Any:
    """The SVG renderer, imported on first use: only the preparation needs it.

    Raises:
      SdvarError: it is not installed.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise SdvarError(
            "resvg-py, which draws the SVG icons, is not installed; "
            "install the extra: pip install 'sdvar-jax[train]'"
        ) from error
    return resvg_py


def rasterise(svg: str) -> np.ndarray:
    """Draws an SVG document on a white background.

    Fonts of the system are not used, so that the pixels do not depend on the machine.

    Args:
      svg: the document; its ``width`` and ``height`` give the size in pixels.

    Returns:
      uint8 ``[height, width, 3]``.

    Raises:
      ValueError: the document is not a valid SVG.
    """
    png = require_renderer().svg_to_bytes(
        svg_string=svg, background="#ffffff", skip_system_fonts=True
    )
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))  # [height, width, 3]
