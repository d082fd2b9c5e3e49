"""Twenty lung regions cut from the five lobes, for the chest CT severity score of Yang et al. 2020.

Yang et al. score the 18 bronchopulmonary segments as 20 regions: the left apicoposterior segment is parted into an
apical and a posterior one, the left anteromedial basal segment into an anterior and a medial one (*Radiology:
Cardiothoracic Imaging* 2020;2(2):e200047). Both lungs then have ten regions each.

Borders between segments cannot be seen on CT without tracing the bronchi, so they are approximated by plane cuts of
each lobe in its own coordinates. Every region of a lobe gets the same share of that lobe's volume: nothing but the lobe
mask decides, the rule is the same at every size and spacing, and no region is so small that a few voxels decide its
score.

=============  =====================================================================================================
lobe           cuts
=============  =====================================================================================================
right upper    cranial third: apical. The rest halved front to back: anterior, posterior.
right middle   halved side to side: lateral, medial.
left upper     cranial three fifths (upper division): cranial third of it apical, the rest halved front to back:
               anterior, posterior. Caudal two fifths (lingula): halved head to feet: superior, inferior.
both lower     cranial fifth: superior. The rest in four sectors about its axis, in the order anterior, lateral,
               posterior, medial, beginning halfway between medial and front.
=============  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBE_BY_ABBREVIATION, Lobe, Side
from m2unet.quantify.boxes import code_boxes
from m2unet.quantify.lobes import check_mask


@dataclass(frozen=True)
class Region:
    """One of the twenty regions.

    Attributes:
        code: value in a region map, 1-20.
        name: English name.
        segment: bronchopulmonary segment after Boyden, ``S1`` to ``S10``.
        lobe: abbreviation of its lobe.
        side: patient side.
    """

    code: int
    name: str
    segment: str
    lobe: str
    side: Side


_TABLE: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("RUL", (("apical", "S1"), ("posterior", "S2"), ("anterior", "S3"))),
    ("RML", (("lateral", "S4"), ("medial", "S5"))),
    (
        "RLL",
        (
            ("superior", "S6"),
            ("medial basal", "S7"),
            ("anterior basal", "S8"),
            ("lateral basal", "S9"),
            ("posterior basal", "S10"),
        ),
    ),
    (
        "LUL",
        (
            ("apical", "S1"),
            ("posterior", "S2"),
            ("anterior", "S3"),
            ("superior lingular", "S4"),
            ("inferior lingular", "S5"),
        ),
    ),
    (
        "LLL",
        (
            ("superior", "S6"),
            ("medial basal", "S7"),
            ("anterior basal", "S8"),
            ("lateral basal", "S9"),
            ("posterior basal", "S10"),
        ),
    ),
)


def _regions() -> tuple[Region, ...]:
    rows = [(lobe, name, segment) for lobe, entries in _TABLE for name, segment in entries]
    sides = {lobe: LOBE_BY_ABBREVIATION[lobe].side for lobe, _ in _TABLE}
    return tuple(
        Region(code, f"{sides[lobe]} {name}", segment, lobe, sides[lobe])
        for code, (lobe, name, segment) in enumerate(rows, start=1)
    )


REGIONS: tuple[Region, ...] = _regions()
"""The twenty regions, codes 1-20: ten of the right lung, then ten of the left."""


@dataclass(frozen=True)
class _Band:
    """Slices of a lobe's box that are divided alike: the region code of each place of their plane, ``[y, x]``."""

    start: int
    stop: int
    plane: NDArray[np.uint8]


def region_map(mask: NDArray[Any], spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Divide each lobe into its regions.

    Args:
        mask: ``[z, y, x]`` lobe codes; z towards the head, y towards the back, x towards the patient's left.
        spacing_mm: ``(z, y, x)``.

    Returns:
        ``[z, y, x]`` region codes 1-20 on every voxel of a lobe, 0 elsewhere.

    Raises:
        M2UNetError: the mask is not 3-D, holds no integers or an unknown code.
    """
    codes = check_mask(mask)
    regions = np.zeros(codes.shape, dtype=np.uint8)
    for place, inside, plane in _divided(codes, spacing_mm):
        regions[place][inside] = plane[inside]
    return regions


def count_regions(
    mask: NDArray[Any], opacity: NDArray[np.uint8], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Voxels of each region and how many of them are opaque, without a map of the regions.

    Args:
        mask, spacing_mm: as :func:`region_map`.
        opacity: ``[z, y, x]`` 0 none, else opaque.

    Returns:
        Two counts by region code, ``[21]``; entry 0 is no region.

    Raises:
        M2UNetError: as :func:`region_map`.
    """
    total, opaque = (np.zeros(len(REGIONS) + 1, dtype=np.int64) for _ in range(2))
    for place, inside, plane in _divided(check_mask(mask), spacing_mm):
        total += np.bincount(plane[inside], minlength=total.size)
        opaque += np.bincount(plane[inside & (opacity[place] > 0)], minlength=total.size)
    return total, opaque


def _divided(
    codes: NDArray[np.uint8], spacing_mm: tuple[float, float, float]
) -> Iterator[tuple[tuple[int, slice, slice], NDArray[np.bool_], NDArray[np.uint8]]]:
    """Slice by slice of each lobe: where it is, which of its voxels are in the lobe, the region at each place."""
    boxes = code_boxes(codes)
    for abbreviation, _ in _TABLE:
        lobe = LOBE_BY_ABBREVIATION[abbreviation]
        box = boxes.get(lobe.code)
        if box is None:
            continue
        inside = codes[box] == lobe.code
        for band in _bands(inside, lobe, spacing_mm):
            for z in range(band.start, band.stop):
                yield (box[0].start + z, box[1], box[2]), inside[z], band.plane


def _bands(inside: NDArray[np.bool_], lobe: Lobe, spacing_mm: tuple[float, float, float]) -> list[_Band]:
    place = {r.name.split(" ", 1)[1]: r.code for r in REGIONS if r.lobe == lobe.abbreviation}
    depth, height, width = inside.shape
    whole = np.ones((height, width), dtype=np.uint8)
    heights = np.count_nonzero(inside, axis=(1, 2))
    if "medial" in place:  # middle lobe
        profile = np.count_nonzero(inside, axis=(0, 1))
        out = np.arange(width) if lobe.side == "left" else np.arange(width)[::-1]  # grows away from the midline
        outer = out > _plane(profile if lobe.side == "left" else profile[::-1], 1 / 2)
        return [_Band(0, depth, whole * np.where(outer, place["lateral"], place["medial"]).astype(np.uint8))]
    if "superior" in place:  # a lower lobe
        top = _plane(heights, 1 / 5) + 1
        basal = _basal(np.count_nonzero(inside[:top], axis=0), lobe, place, spacing_mm)
        return [_Band(0, top, basal), _Band(top, depth, whole * np.uint8(place["superior"]))]
    bands, start = [], 0  # an upper lobe, with or without a lingula
    if "superior lingular" in place:
        start = _plane(heights, 3 / 5) + 1
        high = _plane(heights[:start], 1 / 2) + 1
        bands += [
            _Band(0, high, whole * np.uint8(place["inferior lingular"])),
            _Band(high, start, whole * np.uint8(place["superior lingular"])),
        ]
    apex = start + _plane(heights[start:], 1 / 3) + 1
    behind = np.arange(height) > _plane(np.count_nonzero(inside[start:apex], axis=(0, 2)), 1 / 2)
    rest = np.where(behind, place["posterior"], place["anterior"]).astype(np.uint8)
    return [*bands, _Band(start, apex, whole * rest[:, None]), _Band(apex, depth, whole * np.uint8(place["apical"]))]


def _plane(profile: NDArray[Any], share: float) -> int:
    """The plane above which the share lies, as nearly as whole planes allow; -1 of nothing.

    Args:
        profile: voxels in each plane.
        share: of all voxels.
    """
    held = np.flatnonzero(profile)
    if not held.size:
        return -1
    low, total = int(held[0]), int(profile.sum())
    above = total - np.cumsum(profile[low:])  # voxels above each plane
    return low + int(np.argmin(np.abs(above - share * total)))


def _basal(
    columns: NDArray[Any], lobe: Lobe, place: dict[str, int], spacing_mm: tuple[float, float, float]
) -> NDArray[np.uint8]:
    """Four sectors about the axis of the base.

    Args:
        columns: ``[y, x]`` voxels of the base at each place of the plane.
        lobe: whose.
        place: region codes by name.
        spacing_mm: ``(z, y, x)``.
    """
    sign = 1 if lobe.side == "left" else -1
    y, x = np.nonzero(columns)
    counts, total = columns[y, x], int(columns.sum())
    forward = -(y - int((y * counts).sum()) / total) * spacing_mm[1]
    outward = (sign * x - sign * int((x * counts).sum()) / total) * spacing_mm[2]
    # 0 halfway between medial and front, growing through front, lateral, back, medial
    turn = np.mod(np.arctan2(outward, forward) + np.pi / 4, 2 * np.pi)
    quarters = np.searchsorted(_quantiles(turn, counts, (0.25, 0.5, 0.75)), turn, side="right")
    names = ("anterior basal", "lateral basal", "posterior basal", "medial basal")
    plane = np.zeros(columns.shape, dtype=np.uint8)
    plane[y, x] = np.array([place[name] for name in names], dtype=np.uint8)[quarters]
    return plane


def _quantiles(values: NDArray[np.float64], counts: NDArray[Any], shares: Sequence[float]) -> list[float]:
    """Quantiles of values that occur so many times, as NumPy's of the whole list."""
    order = np.argsort(values)
    ranks = np.cumsum(counts[order])
    found = []
    for share in shares:
        at = share * (int(ranks[-1]) - 1)
        low = int(at)
        ends = np.searchsorted(ranks, [low, min(low + 1, int(ranks[-1]) - 1)], side="right")
        found.append(float(np.quantile(values[order][ends], at - low)))
    return found
