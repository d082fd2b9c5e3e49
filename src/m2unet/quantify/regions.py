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

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBE_BY_ABBREVIATION, Side
from m2unet.quantify.lobes import bounding_box, check_mask


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
    for abbreviation, _ in _TABLE:
        lobe = LOBE_BY_ABBREVIATION[abbreviation]
        inside = codes == lobe.code
        box = bounding_box(inside)
        if box is None:
            continue
        where = tuple(axis.astype(np.int16) for axis in np.nonzero(inside[box]))
        place = {r.name.split(" ", 1)[1]: r.code for r in REGIONS if r.lobe == abbreviation}
        lateral = where[2] if lobe.side == "left" else -where[2]  # grows away from the midline
        points = _Points(up=where[0], back=where[1], out=lateral, spacing_mm=spacing_mm)
        regions[box][where] = _divide(points, place)
    return regions


@dataclass(frozen=True)
class _Points:
    """A lobe's voxels: index towards the head, the back, and away from the midline, ``[n]`` each."""

    up: NDArray[np.int16]
    back: NDArray[np.int16]
    out: NDArray[np.int16]
    spacing_mm: tuple[float, float, float]


def _divide(points: _Points, place: dict[str, int]) -> NDArray[np.uint8]:
    result = np.zeros(points.up.size, dtype=np.uint8)
    everything = np.ones(points.up.size, dtype=bool)
    if "medial" in place:  # middle lobe
        outer = _top_share(points.out, everything, 1 / 2)
        result[outer], result[~outer] = place["lateral"], place["medial"]
    elif "superior" in place:  # a lower lobe
        top = _top_share(points.up, everything, 1 / 5)
        result[top] = place["superior"]
        _basal(points, ~top, place, result)
    else:  # an upper lobe, with or without a lingula
        upper = everything
        if "superior lingular" in place:
            upper = _top_share(points.up, everything, 3 / 5)
            high = _top_share(points.up, ~upper, 1 / 2)
            result[high], result[~upper & ~high] = place["superior lingular"], place["inferior lingular"]
        apex = _top_share(points.up, upper, 1 / 3)
        rest = upper & ~apex
        behind = _top_share(points.back, rest, 1 / 2)
        result[apex], result[behind], result[rest & ~behind] = (place[n] for n in ("apical", "posterior", "anterior"))
    return result


def _top_share(value: NDArray[Any], among: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """The voxels of ``among`` with the highest values: as nearly the share as whole planes allow."""
    held = value[among]
    if not held.size:
        return among & False
    low = int(held.min())
    above = held.size - np.cumsum(np.bincount(held - low))  # voxels above each plane
    plane = low + int(np.argmin(np.abs(above - share * held.size)))
    return among & (value > plane)


def _basal(points: _Points, base: NDArray[np.bool_], place: dict[str, int], result: NDArray[np.uint8]) -> None:
    if not base.any():
        return
    forward = -(points.back[base] - points.back[base].mean()) * points.spacing_mm[1]
    outward = (points.out[base] - points.out[base].mean()) * points.spacing_mm[2]
    # 0 halfway between medial and front, growing through front, lateral, back, medial
    turn = np.mod(np.arctan2(outward, forward) + np.pi / 4, 2 * np.pi)
    quarters = np.searchsorted(np.quantile(turn, [0.25, 0.5, 0.75]), turn, side="right")
    names = ("anterior basal", "lateral basal", "posterior basal", "medial basal")
    result[base] = np.array([place[name] for name in names], dtype=np.uint8)[quarters]
