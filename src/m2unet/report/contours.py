"""One slice as a picture: lung window, opacities tinted, lobes outlined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBES

LUNG_WINDOW = (-1350.0, 150.0)
"""HU, width 1500, level -600: the usual lung window of a reading room."""

OPACITIES: tuple[tuple[int, str, tuple[int, int, int]], ...] = (
    (1, "ground glass", (240, 228, 66)),
    (2, "consolidation", (204, 121, 167)),
)
"""Code, name and display colour of opacities: what the palette of the lobes leaves."""

_TINT = 0.42
_LINE_PIXELS = 2.0


@dataclass(frozen=True)
class Slice:
    """One slice, its first row on top.

    Attributes:
        image: ``[rows, columns]`` HU.
        lobes: ``[rows, columns]`` lobe codes, or None.
        opacity: ``[rows, columns]`` 0 none, 1 ground glass, 2 consolidation, or None.
        spacing_mm: (row, column).
    """

    image: NDArray[Any]
    lobes: NDArray[Any] | None
    opacity: NDArray[Any] | None
    spacing_mm: tuple[float, float]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width."""
        return self.image.shape[0] * self.spacing_mm[0], self.image.shape[1] * self.spacing_mm[1]


def draw_slice(shown: Slice, pixels_per_mm: float) -> NDArray[np.uint8]:
    """Draw a slice with square pixels.

    Args:
        shown: the slice.
        pixels_per_mm: of the picture.

    Returns:
        ``[rows, columns, 3]`` sRGB.
    """
    height, width = (max(1, round(side * pixels_per_mm)) for side in shown.size_mm)
    low, high = LUNG_WINDOW
    grey = _resize(shown.image.astype(np.float32), height, width)
    picture = np.repeat(np.clip((grey - low) / (high - low), 0, 1)[..., None] * 255, 3, axis=2)
    for code, _, colour in OPACITIES if shown.opacity is not None else ():
        part = _soft(shown.opacity == code, height, width)
        _blend(picture, colour, _TINT * (part >= 0.5))
    for lobe in LOBES if shown.lobes is not None else ():
        part = _soft(shown.lobes == lobe.code, height, width)
        if part.any():
            _blend(picture, lobe.colour, _line(part))
    return np.rint(picture).astype(np.uint8)


def _soft(inside: Any, height: int, width: int) -> NDArray[np.float32]:
    """A mask at the picture's size, its steps smoothed."""
    from scipy.ndimage import gaussian_filter

    mask = np.asarray(inside, dtype=np.float32)
    if not mask.any():
        return np.zeros((height, width), dtype=np.float32)
    grown = _resize(mask, height, width)
    smoothed: NDArray[np.float32] = gaussian_filter(grown, [0.5 * height / mask.shape[0], 0.5 * width / mask.shape[1]])
    return smoothed


def _line(part: NDArray[np.float32]) -> NDArray[np.float32]:
    """Opacity of a thin smooth line where a soft mask crosses one half."""
    if min(part.shape) < 2:
        return np.zeros_like(part)
    down, across = np.gradient(part)
    slope = np.hypot(down, across)
    distance = np.divide(np.abs(part - 0.5), slope, out=np.full_like(part, np.inf), where=slope > 1e-4)
    return np.clip(_LINE_PIXELS / 2 + 0.5 - distance, 0, 1).astype(np.float32)


def _blend(picture: NDArray[Any], colour: tuple[int, int, int], alpha: NDArray[Any]) -> None:
    picture += alpha[..., None] * (np.array(colour, dtype=np.float32) - picture)


def _resize(plane: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    from PIL import Image

    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
