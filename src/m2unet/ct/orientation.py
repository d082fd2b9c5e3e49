"""Whether a body lies as the header says: a coarse look at lungs and spine, without any learning.

A turned or mirrored scan still shows a chest, so every figure of it looks sound while right and left, front and back or
head and feet are exchanged. Four signs are read on blocks of 6 mm, each from the body alone, so that neither the table
nor the patient's position on it (prone, feet first) matters:

- *side to side*: the mediastinum parts the lungs along one axis only;
- *head*: lungs are domed above and hollowed by the diaphragm below, narrow above and wide below, and the heart parts
  them below more than above;
- *back*: the spine is a column of bone at the back of the lungs, running along the body;
- *left*: the heart lies to the left, and the right lung is the larger one.

What cannot be read for certain (cut or wholly dense lungs, no bone) is left open and gives no finding. "Real lungs"
below are 51 lung shapes of LUNA16 (H. Tang et al. 2019), of which the figures were taken: the head was found in all,
the left side in three of four; in two of them the heart does lie to the right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2unet.ct.coarse import CoarseGrid
from m2unet.ct.findings import Finding, finding

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

GRID_MM = 6.0
TISSUE_HU = -250.0
LUNG_HU = (-975.0, -450.0)
"""Averaged over a block: below is air without lung, above is dense."""

BONE_HU = (150.0, 300.0)
"""A block counts as bone from none to whole between these; cartilage and most contrast lie below."""

LEAST_L = 0.3
"""Less air-filled lung than this shows too little."""

LEAST_MM = 100.0
"""Lungs that measure less than this along an axis are an excerpt: only the spine is looked at."""

SPINE_MM = 33.0
"""Half the width of the slab in the middle that holds the spine."""

BEHIND_MM = 18.0
"""How far beyond the lungs, in front and behind, the spine may lie; a table is farther away."""

PARTED = 0.6
"""Share by which the lungs' profile falls between them along the axis from side to side; 0.85 in real lungs."""

UNPARTED = 0.3
"""The same along the two others (0.1 and less in real lungs)."""

FILLED = 0.2
"""Share of their box that lungs fill at least (0.22 in real lungs); with less, dense disease hides their shape."""

DEEP, TALL = 0.5, 0.6
"""Least depth and height by the lungs' width (0.54 and 0.75 in real lungs); with less, a part of them holds no air."""

BALANCED = 0.3
"""Share of the lungs that lies on either side of the mediastinum at least (0.39 and more in real lungs)."""

DOME_MM = 15.0
"""Bulge of both surfaces from which the head's end is told: 27 and more in real lungs, -8 and more with dense lobes."""

LEAN = 0.16
"""Greatest difference of the two lungs, as a share of both, at which the side of the heart says anything."""

LEVEL_MM = 24.0
"""Both lungs begin and end within this; otherwise a part of one holds no air, and the heart's side is left open."""

AXES = (("feet", "head"), ("front", "back"), ("right", "left"))
"""What the header says of the two ends of each array axis ``(z, y, x)``."""


@dataclass(frozen=True)
class BodyAxes:
    """Where the body's own directions point in the array, each as ``(axis, sign)``; None where it cannot be told.

    Attributes:
        head: ``(0, 1)`` where the header is right; the axis alone may be sure, then the sign is 0.
        back: ``(1, 1)`` likewise.
        left: ``(2, 1)`` likewise.
    """

    head: tuple[int, int] | None
    back: tuple[int, int] | None
    left: tuple[int, int] | None


def check_orientation(grid: CoarseGrid, average: FloatArray) -> Finding | None:
    """A finding where the body clearly lies otherwise than the header says.

    Args:
        grid: the coarse grid.
        average: ``[z, y, x]`` HU on it, axes as the header says: z to the head, y to the back, x to the left.
    """
    axes = find_axes(grid, average)
    if axes is None:
        return None
    wrong = []
    for part, at, axis in (("the head end", axes.head, 0), ("the spine", axes.back, 1)):
        if at is not None and at[0] != axis and not at[1]:
            wrong.append(f"{part} lies at the {' or the '.join(AXES[at[0]])} by the header")
        elif at is not None and at not in ((axis, 1), (axis, 0)):
            wrong.append(f"{part} lies where the header says {AXES[at[0]][at[1] > 0]}")
    if axes.left is not None and axes.left[0] != 2:
        wrong.append(f"the lungs lie side by side from {' to '.join(AXES[axes.left[0]])} by the header")
    if wrong:
        return finding("orientation-doubtful", "; ".join(wrong) + _handedness(axes))
    if axes.left == (2, -1):
        said = (
            "the heart lies to the right: either left and right are exchanged (a mirrored body), or it is dextrocardia"
        )
        return finding("orientation-doubtful", f"{said} or a heart displaced by disease")
    return None


def _handedness(axes: BodyAxes) -> str:
    """Whether the body is turned or mirrored, where all three directions are sure."""
    directions = (axes.head, axes.back, axes.left)
    if any(at is None or not at[1] for at in directions):
        return ""
    matrix = np.zeros((3, 3))
    for row, at in enumerate(directions):
        if at is not None:
            matrix[row, at[0]] = at[1]
    return " (turned as a whole)" if np.linalg.det(matrix) > 0 else " (left and right of the body are exchanged, too)"


def find_axes(grid: CoarseGrid, average: FloatArray) -> BodyAxes | None:
    """Read the body's directions from the scan; None where too little lung is seen or disease hides their shape."""
    hu = _blocks(grid, average)
    lungs = _lungs(hu)
    if lungs is None:
        return None
    box = ndimage.find_objects(lungs.astype(np.int8))[0]
    extent = [(part.stop - part.start) * GRID_MM for part in box]
    falls = [_fall(lungs.sum(axis=tuple(k for k in range(3) if k != axis))) for axis in range(3)]
    if extent[0] < LEAST_MM:
        parted = falls[2][0] >= PARTED
        return BodyAxes(None, _back(hu, lungs, box, 0, 2, falls[2][1]), None) if parted else None
    side = int(np.argmax([fall for fall, _ in falls]))
    if not _whole(lungs, extent, [fall for fall, _ in falls], side):
        return None
    middle = falls[side][1]
    head = _head(hu, lungs, box, side, middle)
    if head is None or extent[head[0]] < TALL * extent[side] or extent[3 - side - head[0]] < DEEP * extent[side]:
        return None
    back = _back(hu, lungs, box, head[0], side, middle)
    return BodyAxes(head, back, _left(lungs, box, head, back, side, middle))


def _whole(lungs: BoolArray, extent: list[float], falls: list[float], side: int) -> bool:
    """Whether these are two lungs side by side along one axis, their shape not lost in dense disease."""
    middle = _fall(lungs.sum(axis=tuple(k for k in range(3) if k != side)))[1]
    first = lungs.take(range(middle + 1), axis=side).sum()
    return (
        falls[side] >= PARTED
        and max(falls[axis] for axis in range(3) if axis != side) <= UNPARTED
        and min(extent) >= LEAST_MM
        and float(lungs.sum()) >= FILLED * float(np.prod(extent)) / GRID_MM**3
        and BALANCED <= float(first / lungs.sum()) <= 1 - BALANCED
    )


def _blocks(grid: CoarseGrid, average: FloatArray) -> FloatArray:
    """``[z, y, x]`` HU in cubes of 6 mm."""
    size = [max(1, round(GRID_MM / step)) for step in grid.spacing_mm]
    smooth = ndimage.uniform_filter(average, size, mode="nearest") if max(size) > 1 else average
    at = []
    for count, step in zip(average.shape, grid.spacing_mm, strict=True):
        blocks = max(1, round(count * step / GRID_MM))
        at.append(np.minimum(((np.arange(blocks) + 0.5) * GRID_MM / step).astype(int), count - 1))
    return np.asarray(smooth[np.ix_(*at)], dtype=np.float32)


def _lungs(hu: FloatArray) -> BoolArray | None:
    """Air-filled lung: enclosed by the body along two axes at least, thicker than the partial blocks of a surface."""
    labels, count = ndimage.label(hu > TISSUE_HU)
    if not count:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body = labels == sizes.argmax()
    enclosed = sum(_between(body, axis).astype(np.uint8) for axis in range(3)) >= 2
    air = (hu > LUNG_HU[0]) & (hu < LUNG_HU[1]) & enclosed
    labels, count = ndimage.label(air)
    sizes = np.bincount(labels.ravel())
    thick = np.zeros(count + 1, dtype=bool)
    thick[labels[ndimage.binary_erosion(air, border_value=1)]] = True
    sizes[~thick] = 0
    sizes[0] = 0
    if not sizes.any():
        return None
    lungs: BoolArray = (sizes >= 0.1 * sizes.max())[labels] & (labels > 0)
    return lungs if lungs.sum() * GRID_MM**3 / 1e6 >= LEAST_L else None


def _between(mask: BoolArray, axis: int) -> BoolArray:
    """Blocks with something of the mask on both sides along an axis."""
    before = np.maximum.accumulate(mask, axis=axis)
    after = np.flip(np.maximum.accumulate(np.flip(mask, axis), axis=axis), axis)
    result: BoolArray = before & after
    return result


def _fall(profile: NDArray[np.int64]) -> tuple[float, int]:
    """How far a profile falls between two humps, as a share of the lower one, and where."""
    before = np.maximum.accumulate(profile)
    after = np.maximum.accumulate(profile[::-1])[::-1]
    hump = np.minimum(before, after)
    fall = np.where(hump >= 0.4 * profile.max(), 1 - profile / np.maximum(hump, 1), 0.0)
    at = np.flatnonzero(fall == fall.max())
    return float(fall.max()), int(at[len(at) // 2])


def _head(hu: FloatArray, lungs: BoolArray, box: tuple[slice, ...], side: int, middle: int) -> tuple[int, int] | None:
    """The end of the domes among the four directions that are not side to side, if shape or spine leave no doubt."""
    others = [axis for axis in range(3) if axis != side]
    domes = {axis: _domes(np.moveaxis(lungs[box], axis, 0)) for axis in others}
    columns = {axis: _spine(hu, box, axis, side, middle) for axis in others}
    scores = {axis: abs(domes[axis]) / 40 + 2 * columns[axis].share for axis in others}
    along, other = sorted(others, key=lambda axis: -scores[axis])
    if scores[along] - scores[other] < 0.4:
        return None
    shape = np.moveaxis(lungs[box], (along, other, side), (0, 1, 2))
    taper = _taper(shape, middle - box[side].start)
    if abs(domes[along]) < DOME_MM or domes[along] * taper < 0:
        return along, 0
    return along, 1 if taper > 0 else -1


def _domes(lungs: BoolArray) -> float:
    """How much the lungs' upper and lower surface bulge to the end of the first axis, mm; negative to its beginning."""
    footprint = lungs.any(axis=0)
    depth = ndimage.distance_transform_edt(np.pad(footprint, 1))[1:-1, 1:-1]
    top = len(lungs) - 1 - lungs[::-1].argmax(axis=0)
    bottom = lungs.argmax(axis=0)
    inner, rim = depth >= 4, footprint & (depth <= 2)
    if not inner.any():
        return 0.0
    return float(sum(surface[inner].mean() - surface[rim].mean() for surface in (top, bottom)) * GRID_MM)


def _taper(lungs: BoolArray, middle: int) -> float:
    """Positive where the lungs are wider and farther apart at the beginning of the first axis than at its end."""
    count = len(lungs)
    rim = round(0.15 * count)
    wide = [
        float(np.ptp(np.flatnonzero(part.any(axis=(0, 1))))) + 1
        for part in (lungs[rim : rim + 2], lungs[-rim - 2 : -rim])
    ]
    low, high = slice(int(0.1 * count), int(0.45 * count)), slice(int(0.55 * count), int(0.9 * count))
    apart = [_gaps(lungs[part], middle) for part in (low, high)]
    votes = 2 * float(np.log(wide[0] / wide[1]))
    if all(gap.width.size for gap in apart):
        votes += float(apart[0].width.mean() - apart[1].width.mean()) * GRID_MM / 40
    return votes


@dataclass(frozen=True)
class _Gap:
    """What lies between the lungs, one value a row: its width in blocks and its middle."""

    width: NDArray[np.float64]
    centre: NDArray[np.float64]


def _gaps(lungs: BoolArray, middle: int) -> _Gap:
    first, second = lungs[..., : middle + 1], lungs[..., middle + 1 :]
    both = first.any(axis=-1) & second.any(axis=-1)
    last = middle - first[..., ::-1].argmax(axis=-1)[both]
    begin = middle + 1 + second.argmax(axis=-1)[both]
    return _Gap((begin - last - 1).astype(np.float64), (begin + last) / 2)


@dataclass(frozen=True)
class _Column:
    """The bone between the lungs.

    Attributes:
        share: of the slices, that hold bone in the best row.
        centre: of its mass, from -0.5 (beginning of the axis from front to back) to 0.5 (end), in lungs.
        blocks: whole blocks of bone a slice.
    """

    share: float
    centre: float
    blocks: float


def _spine(hu: FloatArray, box: tuple[slice, ...], along: int, side: int, middle: int) -> _Column:
    depth = 3 - along - side
    half, beyond = round(SPINE_MM / GRID_MM), round(BEHIND_MM / GRID_MM)
    part = list(box)
    part[side] = slice(max(0, middle - half), middle + half + 1)
    part[depth] = slice(max(0, box[depth].start - beyond), box[depth].stop + beyond)
    slab = np.moveaxis(hu[tuple(part)], (along, depth, side), (0, 1, 2))
    bone = np.clip((slab - BONE_HU[0]) / (BONE_HU[1] - BONE_HU[0]), 0, 1)
    mass = bone.sum(axis=(0, 2))
    if not mass.any():
        return _Column(0.0, 0.0, 0.0)
    length = box[depth].stop - box[depth].start
    place = (np.arange(len(mass)) + part[depth].start + 0.5 - (box[depth].start + box[depth].stop) / 2) / length
    return _Column(
        float(bone.max(axis=2).mean(axis=0).max()), float(mass @ place / mass.sum()), float(mass.sum() / len(slab))
    )


def _back(
    hu: FloatArray, lungs: BoolArray, box: tuple[slice, ...], along: int, side: int, middle: int
) -> tuple[int, int] | None:
    found = _spine(hu, box, along, side, middle)
    if _cut(lungs, box, 3 - along - side):
        return None
    if found.blocks < 4 or found.share < 0.35 or abs(found.centre) < 0.05:
        return None
    return 3 - along - side, 1 if found.centre > 0 else -1


def _left(
    lungs: BoolArray,
    box: tuple[slice, ...],
    head: tuple[int, int] | None,
    back: tuple[int, int] | None,
    side: int,
    middle: int,
) -> tuple[int, int]:
    """The side of the heart and of the smaller lung; sign 0 where they do not agree well enough."""
    if head is None or not head[1] or back is None or _cut(lungs, box, side):
        return side, 0
    shape = np.moveaxis(lungs[box], (head[0], back[0], side), (0, 1, 2))
    shape = shape[:: head[1], :: back[1]]
    middle -= box[side].start
    height, depth, width = shape.shape
    first, second = int(shape[..., : middle + 1].sum()), int(shape[..., middle + 1 :].sum())
    share = (first - second) / (first + second)
    heart = _gaps(shape[int(0.15 * height) : int(0.5 * height), int(0.1 * depth) : int(0.5 * depth)], middle)
    if not heart.width.any():
        return side, 0
    offset = (float(heart.width @ heart.centre / heart.width.sum()) - (width - 1) / 2) * GRID_MM
    votes = share / 0.08 + offset / 12
    if abs(votes) < 1 or share * offset < 0 or abs(share) > LEAN or not _level(shape, middle):
        return side, 0
    return side, 1 if votes > 0 else -1


def _level(lungs: BoolArray, middle: int) -> bool:
    """Whether both lungs begin and end at about the same height."""
    ends = [
        np.flatnonzero(part.any(axis=(1, 2)))[[0, -1]] for part in (lungs[..., : middle + 1], lungs[..., middle + 1 :])
    ]
    return bool(np.abs(ends[0] - ends[1]).max() * GRID_MM <= LEVEL_MM)


def _cut(lungs: BoolArray, box: tuple[slice, ...], axis: int) -> bool:
    """Whether the field of view may cut the lungs along an axis."""
    return box[axis].start < 1 or box[axis].stop > lungs.shape[axis] - 1
