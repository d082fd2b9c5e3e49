"""The strongest patches as a picture: their slices, the heat over them, a frame around each patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.files import atomic_path
from m2unet.report.contours import Slice, draw_slice
from m2unet.report.montage import DISCLAIMER, Scene, font

_WIDTH, _GAP, _STRIP = 1600, 6, 34
_FRAME, _LIGHT, _DIM = (255, 255, 255), (225, 229, 235), (150, 158, 168)
_FAINTEST = 0.1
_STRONGEST = 0.62


@dataclass(frozen=True)
class FramedPatch:
    """A patch to show.

    Attributes:
        z: slice, from 0.
        box: ``(y0, y1, x0, x1)`` in voxels.
        title: above its slice.
    """

    z: int
    box: tuple[int, int, int, int]
    title: str


def save_evidence(path: Path, scene: Scene, patches: Sequence[FramedPatch]) -> None:
    """One axial slice a patch, the strongest first, as PNG written atomically.

    Args:
        path: the PNG to write.
        scene: the scan, with its heat.
        patches: at least one; the first four are shown.
    """
    from PIL import Image, ImageDraw

    box = scene.box()
    shown = list(patches[:4])
    column = (_WIDTH - 3 * _GAP) // 4
    size_mm = (box[1].stop - box[1].start) * scene.spacing_mm[1], (box[2].stop - box[2].start) * scene.spacing_mm[2]
    scale = column / size_mm[1]
    picture = Image.new("RGB", (_WIDTH, round(size_mm[0] * scale) + 2 * _STRIP), (0, 0, 0))
    pen = ImageDraw.Draw(picture)
    for number, patch in enumerate(shown):
        left = number * (column + _GAP)
        cut = scene.cut((patch.z, box[1], box[2]), (1, 2))
        tile = draw_slice(Slice(cut.image, cut.lobes, None, cut.spacing_mm), scale)
        if scene.heat is not None:
            tile = with_heat(tile, scene.heat[patch.z, box[1], box[2]])
        picture.paste(Image.fromarray(tile), (left, _STRIP))
        _frame(pen, patch, box, (left, _STRIP), (scene.spacing_mm[1] * scale, scene.spacing_mm[2] * scale), column)
        pen.text((left + 8, 8), patch.title, fill=_LIGHT, font=font(17))
    foot = picture.height - _STRIP + 9
    pen.text((8, foot), "orange: speaks for severe; frame: the patch", fill=_DIM, font=font(15))
    pen.text((_WIDTH - 12, foot), DISCLAIMER, fill=_DIM, font=font(15), anchor="ra")
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=6)


def with_heat(tile: NDArray[np.uint8], heat: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Lay positive heat over a drawn slice: from dark red to yellow, the stronger the less transparent."""
    from PIL import Image

    warm = Image.fromarray(np.clip(heat, 0, 100).astype(np.float32)).resize(
        tile.shape[1::-1], Image.Resampling.BILINEAR
    )
    strength = np.asarray(warm, dtype=np.float32)[..., None] / 100
    colour = np.concatenate([np.full_like(strength, 255), 60 + 170 * strength, 30 * strength], axis=2)
    alpha = np.where(strength > _FAINTEST, _STRONGEST * np.sqrt(strength), 0)
    return np.rint(tile + alpha * (colour - tile)).astype(np.uint8)


def _frame(
    pen: Any,
    patch: FramedPatch,
    box: tuple[slice, slice, slice],
    corner: tuple[int, int],
    pixels: tuple[float, float],
    width: int,
) -> None:
    y0, y1, x0, x1 = patch.box
    rows = [corner[1] + (y - box[1].start) * pixels[0] for y in (y0, y1)]
    columns = [corner[0] + (x - box[2].start) * pixels[1] for x in (x0, x1)]
    bottom = corner[1] + (box[1].stop - box[1].start) * pixels[0] - 1
    rows = [float(np.clip(row, corner[1], bottom)) for row in rows]
    columns = [float(np.clip(column, corner[0], corner[0] + width - 1)) for column in columns]
    if rows[1] > rows[0] and columns[1] > columns[0]:
        pen.rectangle((columns[0], rows[0], columns[1], rows[1]), outline=_FRAME, width=2)
