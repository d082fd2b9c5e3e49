"""A scan at a glance: axial, coronal and sagittal slices with lobes outlined and opacities tinted, as PNG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBES, RIGHT_CODES
from m2unet.files import atomic_path
from m2unet.report.contours import OPACITIES, Slice, draw_slice

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

DISCLAIMER = "Research use only. Not for diagnosis."

_WIDTH = 1600
_GAP = 6
_STRIP = 40
_MARGIN_MM = 12.0
_BODY_ABOVE_HU = -500
_LIGHT, _DIM = (225, 229, 235), (150, 158, 168)


@dataclass(frozen=True)
class Scene:
    """What is drawn.

    Attributes:
        array: ``[z, y, x]`` HU in LPS.
        lobes: ``[z, y, x]`` lobe codes, or None.
        opacity: ``[z, y, x]`` 0 none, 1 ground glass, 2 consolidation, or None.
        spacing_mm: (z, y, x).
        heat: ``[z, y, x]`` int8 percent of the largest heat, positive where it speaks for severe, or None.
    """

    array: NDArray[np.int16]
    lobes: NDArray[np.uint8] | None
    opacity: NDArray[np.uint8] | None
    spacing_mm: tuple[float, float, float]
    heat: NDArray[np.int8] | None = None

    def box(self) -> tuple[slice, slice, slice]:
        """The part worth showing: the lobes, or else the body, with a margin."""
        inside = self.lobes if self.lobes is not None and self.lobes.any() else self.array > _BODY_ABOVE_HU
        low, high = _extent(inside)
        sides = [
            slice(max(0, a - round(_MARGIN_MM / step)), min(size, b + 1 + round(_MARGIN_MM / step)))
            for a, b, step, size in zip(low, high, self.spacing_mm, self.array.shape, strict=True)
        ]
        return sides[0], sides[1], sides[2]

    def cut(self, index: Any, axes: tuple[int, int]) -> Slice:
        """The slice at an index of the arrays; ``axes`` are its rows' and columns'."""
        return Slice(
            self.array[index],
            None if self.lobes is None else self.lobes[index],
            None if self.opacity is None else self.opacity[index],
            (self.spacing_mm[axes[0]], self.spacing_mm[axes[1]]),
        )


@dataclass(frozen=True)
class _Tile:
    shown: Slice
    title: str
    sides: tuple[str, str]


def save_montage(path: Path, scene: Scene, *, title: str = "") -> None:
    """Six axial slices from head to feet, one coronal and one sagittal, as PNG written atomically.

    Shown as in a reading room: the patient's right is on the left of axial and coronal pictures.

    Args:
        path: the PNG to write.
        scene: the scan.
        title: a line above, without identifiers.
    """
    from PIL import Image, ImageDraw

    tiles = _tiles(scene)
    column = (_WIDTH - 3 * _GAP) // 4
    sizes = [tile.shown.size_mm for tile in tiles]
    scale = min(column / max(width for _, width in sizes), 1.25 * column / max(height for height, _ in sizes))
    rows = [round(max(height for height, _ in line) * scale) for line in (sizes[:4], sizes[4:])]
    picture = Image.new("RGB", (_WIDTH, sum(rows) + _GAP + 2 * _STRIP), (0, 0, 0))
    pen = ImageDraw.Draw(picture)
    for number, tile in enumerate(tiles):
        line = number // 4
        top = _STRIP + line * (rows[0] + _GAP)
        _place(picture, pen, tile, ((number % 4) * (column + _GAP), top, column, rows[line]), scale)
    pen.text((12, 9), title, fill=_LIGHT, font=font(19))
    _scale_bar(pen, scale)
    _legend(pen, picture.height - _STRIP + 10, scene)
    _save(picture, path)


def save_thumbnail(path: Path, scene: Scene, height: int = 160) -> None:
    """One coronal slice, so many pixels high, as PNG written atomically."""
    from PIL import Image

    shown = _coronal(scene, scene.box())
    _save(Image.fromarray(draw_slice(shown, height / shown.size_mm[0])), path)


def _extent(inside: NDArray[Any]) -> tuple[list[int], list[int]]:
    """Lowest and highest (z, y, x) index of what is there; of the whole array if nothing is."""
    low, high = [0, 0, 0], [side - 1 for side in inside.shape]
    for axis in range(3):
        held = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        if held.size:
            low[axis], high[axis] = int(held[0]), int(held[-1])
    return low, high


def _tiles(scene: Scene) -> list[_Tile]:
    box = scene.box()
    depth = len(scene.array)
    low, high = _extent(scene.lobes[box]) if scene.lobes is not None else _extent(scene.array[box] > _BODY_ABOVE_HU)
    heights = np.linspace(high[0], low[0], 8)[1:-1].round().astype(int) + box[0].start
    tiles = [
        _Tile(scene.cut((k, box[1], box[2]), (1, 2)), f"axial {k + 1} of {depth}", ("R", "L")) for k in heights.tolist()
    ]
    tiles.append(_Tile(_coronal(scene, box), "coronal", ("R", "L")))
    side = _right_middle(scene, box)
    return [*tiles, _Tile(scene.cut((_upright(box), box[1], side), (0, 1)), "sagittal, right", ("A", "P"))]


def _coronal(scene: Scene, box: tuple[slice, slice, slice]) -> Slice:
    middle = (box[1].start + box[1].stop) // 2
    if scene.lobes is not None and scene.lobes.any():  # where the lungs are largest
        middle = int(np.argmax(sum((plane > 0).sum(axis=1) for plane in scene.lobes)))
    return scene.cut((_upright(box), middle, box[2]), (0, 2))


def _upright(box: tuple[slice, slice, slice]) -> slice:
    """Slices from head to feet, so that the head is on top."""
    return slice(box[0].stop - 1, box[0].start - 1 if box[0].start else None, -1)


def _right_middle(scene: Scene, box: tuple[slice, slice, slice]) -> int:
    if scene.lobes is not None:
        profile = np.sum([np.isin(plane, RIGHT_CODES).sum(axis=0) for plane in scene.lobes], axis=0)
        if profile.any():
            return int(np.searchsorted(np.cumsum(profile), profile.sum() / 2))
    return box[2].start + (box[2].stop - box[2].start) // 4


def _place(picture: Image, pen: ImageDraw, tile: _Tile, cell: tuple[int, int, int, int], scale: float) -> None:
    from PIL import Image as Images

    left, top, width, height = cell
    drawn = draw_slice(tile.shown, scale)
    at = (left + (width - drawn.shape[1]) // 2, top + (height - drawn.shape[0]) // 2)
    picture.paste(Images.fromarray(drawn), at)
    middle = at[1] + drawn.shape[0] // 2
    pen.text((at[0] + 8, at[1] + 6), tile.title, fill=_LIGHT, font=font(16), stroke_width=2, stroke_fill=(0, 0, 0))
    for letter, x, anchor in ((tile.sides[0], at[0] + 6, "lm"), (tile.sides[1], at[0] + drawn.shape[1] - 6, "rm")):
        pen.text((x, middle), letter, fill=_DIM, font=font(17), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _scale_bar(pen: ImageDraw, scale: float) -> None:
    length = round(50 * scale)
    pen.line((_WIDTH - 12 - length, 24, _WIDTH - 12, 24), fill=_LIGHT, width=3)
    pen.text((_WIDTH - 20 - length, 24), "5 cm", fill=_LIGHT, font=font(15), anchor="rm")


def _legend(pen: ImageDraw, top: int, scene: Scene) -> None:
    entries: list[tuple[str, tuple[int, int, int]]] = []
    if scene.lobes is not None:
        entries += [(lobe.abbreviation, lobe.colour) for lobe in LOBES]
    if scene.opacity is not None:
        entries += [(name, colour) for _, name, colour in OPACITIES]
    left = 12
    for name, colour in entries:
        pen.rectangle((left, top + 2, left + 16, top + 16), fill=colour)
        pen.text((left + 24, top + 9), name, fill=_LIGHT, font=font(16), anchor="lm")
        left += 24 + round(pen.textlength(name, font=font(16))) + 24
    pen.text((_WIDTH - 12, top + 9), DISCLAIMER, fill=_DIM, font=font(15), anchor="rm")


def font(size: int) -> Any:
    """Pillow's own font at a size, the same on every machine."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _save(picture: Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=6)
