"""Whether what the coarse look found is what a chest looks like: slices in order, enough lung, lung on both sides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.coarse import CoarseGrid
from m2unet.ct.findings import Finding, finding
from m2unet.ct.lungs import Lungs

ALIKE = 0.5
"""Dice of the lungs in neighbouring slices below which they do not follow each other: 0.73 and more in the middle part
of scans with slices up to 14 mm apart."""

MANY = 0.15
"""Share of such places from which the slices are out of order; dense disease breaks the air in a few."""

SEAM = 0.3
"""One place alone shows where two stacks meet: its Dice lies so far below that on either side of it."""

ENDS = 0.2
"""Share of the slices at either end that is left out: there the lungs begin and end within a thick slice."""

LEAST_PAIRS = 5
LEAST_CM2 = 20.0
"""Neighbours with less lung than this in both are left out."""

LITTLE_CM2 = 25.0
"""Mean area of lung in the slices that hold any, below which the air may be no lung; a chest has 100 and more."""

TWO_SIDED = 0.3
"""Share of the lungs on either side of the body's middle, from which their shape is judged as that of two."""

ONE_SIDE = 0.05
"""Share of the lungs on the lesser side of the body's middle, below which one lung is missing or without air."""

BODY_MM = (100.0, 750.0)
"""Width of a body, from an infant's chest to the widest table; outside, the voxel sizes are wrong."""

LUNGS_MM = 420.0
"""Lungs are no wider (204-318 mm in 51 scans of LUNA16)."""

LUNGS_ML = 10000.0
"""More air-filled lung than in severe emphysema: total lung capacity there is 6.5 +- 1.3 l (Garfield et al. 2012,
*Int J COPD* 7:119-126), 8.2 l at most in LUNA16."""

TALL, DEEP = (0.4, 1.5), 1.1
"""Height of whole lungs by their width, and greatest depth by it (0.75-1.18 and 0.81 in LUNA16)."""


def check_size(lungs: Lungs | None, grid: CoarseGrid, body: NDArray[np.bool_]) -> Finding | None:
    """A finding where body or lungs have a size that shows the voxel sizes to be lost or exchanged.

    Args:
        lungs: as found; None where none were.
        grid: the coarse grid.
        body: ``[z, y, x]`` on it.
    """
    low, high = grid.box(body)
    width = float((high - low)[2] * grid.spacing_mm[2] / grid.factors[2])
    if not BODY_MM[0] <= width <= BODY_MM[1]:
        return finding("orientation-doubtful", f"the body is {width:.0f} mm wide: the voxel sizes look wrong")
    if lungs is None:
        return None
    height, depth, width = ((lungs.high - lungs.low) * grid.spacing_mm / grid.factors).tolist()
    right = _right_share(lungs, body)
    both = TWO_SIDED <= right <= 1 - TWO_SIDED and not lungs.cut_sides  # one lung alone is narrow
    both = both and _mean_cm2(lungs) >= LITTLE_CM2
    whole = both and not (lungs.cut_top or lungs.cut_bottom)
    if (
        width > LUNGS_MM
        or lungs.ml > LUNGS_ML
        or (whole and not TALL[0] * width <= height <= TALL[1] * width)
        or (both and depth > DEEP * width)
    ):
        said = f"the lungs are {width:.0f} mm wide, {depth:.0f} mm deep and {height:.0f} mm high"
        return finding("orientation-doubtful", f"{said}, {lungs.ml / 1000:.1f} l: the voxel sizes look wrong")
    return None


def check_chest_shape(lungs: Lungs, body: NDArray[np.bool_]) -> list[Finding]:
    """Findings where the lungs of the coarse look are not those of a chest.

    Args:
        lungs: as found.
        body: ``[z, y, x]`` on the lungs' grid.
    """
    reasons = [text for text in (_order(lungs), _little(lungs), _one_side(lungs, body)) if text]
    return [finding("chest-uncertain", "; ".join(reasons))] if reasons else []


def _order(lungs: Lungs) -> str | None:
    mask = lungs.mask_coarse
    area = mask.sum(axis=(1, 2)).astype(float)
    cm2 = lungs.grid.spacing_mm[1] * lungs.grid.spacing_mm[2] / 100
    pairs = np.flatnonzero(np.maximum(area[1:], area[:-1]) * cm2 > LEAST_CM2)
    ends = int(np.ceil(ENDS * len(pairs)))
    pairs = pairs[ends : len(pairs) - ends]
    if len(pairs) < LEAST_PAIRS:
        return None
    dice = 2 * (mask[1:] & mask[:-1]).sum(axis=(1, 2))[pairs] / (area[1:] + area[:-1])[pairs]
    broken = int((dice < ALIKE).sum())
    seams = int((dice[1:-1] < np.minimum(dice[:-2], dice[2:]) - SEAM).sum())
    if broken <= MANY * len(dice) and not seams:
        return None
    places = max(broken, seams)
    return f"the lungs do not continue from slice to slice at {places} place(s): slices may be out of order or missing"


def _little(lungs: Lungs) -> str | None:
    cm2 = _mean_cm2(lungs)
    if cm2 >= LITTLE_CM2:
        return None
    return f"only {lungs.ml:.0f} ml of air-filled lung, {cm2:.0f} cm² a slice"


def _one_side(lungs: Lungs, body: NDArray[np.bool_]) -> str | None:
    right = _right_share(lungs, body)
    if ONE_SIDE <= right <= 1 - ONE_SIDE:
        return None
    return f"air-filled lung on the {'right' if right > 0.5 else 'left'} side only"


def _right_share(lungs: Lungs, body: NDArray[np.bool_]) -> float:
    """Share of the lungs to the right of the body's middle."""
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    middle = (int(columns[0]) + int(columns[-1]) + 1) // 2
    return float(lungs.mask_coarse[:, :, :middle].sum() / lungs.mask_coarse.sum())


def _mean_cm2(lungs: Lungs) -> float:
    """Mean area of lung in the slices that hold any."""
    height = (lungs.high[0] - lungs.low[0]) / lungs.grid.factors[0] * lungs.grid.spacing_mm[0]
    return float(lungs.ml / height * 10)
