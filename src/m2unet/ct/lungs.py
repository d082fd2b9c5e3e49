"""The lungs, coarsely and classically: air inside the body, without trachea and bowel gas.

No learning is involved, so this serves before any model: to check that a scan holds whole lungs, and as the box that
positions are measured in. Dense disease is not air and is missed; the box of both lungs together suffers least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2unet.ct.body import largest, unseen
from m2unet.ct.coarse import CoarseGrid

AIR_HU = -350.0
"""Averaged over a block: below is air-filled lung (ground glass included), airway, gas, or outside."""

GAS_HU = -965.0
"""Regions whose median lies below hold gas alone (airway, stomach, bowel), not lung."""

TISSUE_HU = -300.0
"""Averaged over a block: above is tissue."""

AIRWAY_RADIUS_MM = 11.0
"""An opening of this radius removes the trachea (up to 2.7 cm wide with disease) and leaves the lungs."""

LEAST_ML = 100.0
"""Less air-filled lung than this counts as none, in a scan at least 10 cm high; in a lower one, less in proportion."""

PIECE_ML = 10.0
"""Smaller pieces are left out."""

CUT_CM2 = 3.0
"""A lung with more than this area on a border of the scan is cut off there."""

END_MM = 5.0
"""An end slice holds lung where a disk of this radius fits into it."""

BARE = 0.1
"""Share of its surface by which a piece of lung may adjoin the air outside: a chest wall lies between."""

LARGE_ML_MM = 10.0
"""With this much lung to each millimetre of the scan's height, nothing is missing that the field of view cuts open."""

FLANKED = 0.5
"""Share of a piece of lung at the border of the scan that has tissue of the body on two of its four sides in the plane;
a mattress has it on one (measured: 0.73 and more in heart CT, 0.24 and less beside the body)."""


@dataclass(frozen=True)
class Lungs:
    """Both lungs together, as far as they hold air.

    Attributes:
        mask_coarse: bool on ``grid``.
        grid: the coarse grid.
        low: first voxel ``(z, y, x)`` of the bounding box in voxels of the full array, float64.
        high: one past the last voxel.
        ml: volume.
        cut_top: lung reaches the uppermost slice: apices may be missing.
        cut_bottom: lung reaches the lowest slice: bases may be missing.
        cut_sides: lung reaches the border of the slices, or of a round field of view.
    """

    mask_coarse: NDArray[np.bool_]
    grid: CoarseGrid
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    ml: float
    cut_top: bool
    cut_bottom: bool
    cut_sides: bool


def find_lungs(
    array: NDArray[np.int16], spacing_mm: tuple[float, float, float], body_mask: NDArray[np.bool_]
) -> Lungs | None:
    """Find the lungs inside the body.

    Args:
        array: ``[z, y, x]`` HU.
        spacing_mm: ``(z, y, x)``.
        body_mask: ``[z, y, x]``, from :func:`m2unet.ct.body.find_body`.

    Returns:
        The lungs, precise to about 2.5 mm, or None if there is too little lung-like air, see ``LEAST_ML``.
    """
    grid = CoarseGrid.fitting(array.shape, spacing_mm)
    return lungs_on(grid, grid.average(array), grid.sample(body_mask))


def lungs_on(grid: CoarseGrid, average: NDArray[np.float32], body: NDArray[np.bool_]) -> Lungs | None:
    """The lungs from a coarse average and a coarse body; see :func:`find_lungs`."""
    lungs = _lungs(grid, average, body & (average < AIR_HU))
    block_ml = float(np.prod(grid.spacing_mm)) / 1000
    found = 0 if lungs is None else int(lungs.sum())
    if found * block_ml < LARGE_ML_MM * average.shape[0] * grid.spacing_mm[0]:
        opened = _cut_open(grid, average)
        if opened is not None and opened.sum() > 2 * found:
            lungs = opened if lungs is None else lungs | opened
    least = LEAST_ML * min(1.0, average.shape[0] * grid.spacing_mm[0] / 100)
    if lungs is None or lungs.sum() * block_ml < least:
        return None
    low, high = grid.box(lungs)
    bottom, top = (_end_cm2(grid, average[at], lungs[at]) for at in (slice(0, 1), slice(-1, None)))
    return Lungs(
        mask_coarse=lungs,
        grid=grid,
        low=low,
        high=high,
        ml=float(lungs.sum() * block_ml),
        cut_top=top > CUT_CM2,
        cut_bottom=bottom > CUT_CM2,
        cut_sides=_cut_sides(grid, average, lungs),
    )


def _lungs(grid: CoarseGrid, average: NDArray[np.float32], air: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Lung-like pieces of air wider than an airway, at the height of the largest, with all that hangs on to them."""
    core = grid.disk(AIRWAY_RADIUS_MM).erode(air)
    wide = grid.disk(AIRWAY_RADIUS_MM * 1.3).dilate(core) & air
    labels, count = ndimage.label(wide)
    if count == 0:
        return None
    block_ml = float(np.prod(grid.spacing_mm)) / 1000
    least = PIECE_ML * min(1.0, average.shape[0] * grid.spacing_mm[0] / 100)
    sizes = np.bincount(labels.ravel()) * block_ml
    sizes[0] = 0
    kept = [n for n in np.flatnonzero(sizes >= least) if np.median(average[labels == n]) > GAS_HU]
    if not kept:
        return None
    places = ndimage.find_objects(labels)
    heights = {n: (places[n - 1][0].start, places[n - 1][0].stop) for n in kept}
    low, high = heights[max(kept, key=lambda n: sizes[n])]
    kept = [n for n, (start, stop) in heights.items() if _overlap(start, stop, low, high) >= 0.5]
    found = np.isin(labels, kept)
    # thin parts, such as the recesses at the diaphragm, hang on to the wide ones; without its gas the airway does not
    gas = grid.disk(0).dilate(average < GAS_HU)
    parts, count = ndimage.label(air & ~gas)
    holds = np.zeros(count + 1, dtype=bool)
    holds[parts[found]] = True
    holds[0] = False
    return found | holds[parts]


def _overlap(start: int, stop: int, low: int, high: int) -> float:
    """Shared height as a share of the smaller."""
    return max(0, min(stop, high) - max(start, low)) / min(stop - start, high - low)


def _end_cm2(grid: CoarseGrid, average: NDArray[np.float32], lungs: NDArray[np.bool_]) -> float:
    """Area of lung in an end slice ``[1, y, x]``; the airway's gas and the thin rim around it are no lung."""
    aerated = grid.disk(END_MM).open(lungs & (average > GAS_HU))
    return float(aerated.sum() * grid.spacing_mm[1] * grid.spacing_mm[2] / 100)


def _cut_open(grid: CoarseGrid, average: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Lung that the field of view cuts open, which no wall encloses: a heart CT. None where nothing looks like it."""
    ring = _ring(average)
    face_cm2 = grid.spacing_mm[0] * grid.spacing_mm[1] / 100
    beyond = _beyond(average)
    gas = (average < GAS_HU) & ~beyond
    if np.count_nonzero((average < AIR_HU) & ~gas & ring) * face_cm2 <= CUT_CM2:
        return None
    outside = grid.disk(0).dilate(grid.disk(AIRWAY_RADIUS_MM).open(gas))
    air = (average < AIR_HU) & ~outside & ~beyond
    labels, count = ndimage.label(air)
    sizes = np.bincount(labels.ravel()) * float(np.prod(grid.spacing_mm)) / 1000
    at_ring = np.bincount(labels[:, ring].ravel(), minlength=count + 1) * face_cm2
    wide = np.bincount(labels[grid.disk(AIRWAY_RADIUS_MM).erode(air)], minlength=count + 1) > 0
    sides = _sides(average)
    flanked = np.bincount(labels[sides >= 2], minlength=count + 1) >= FLANKED * np.bincount(labels.ravel())
    candidates = (sizes >= PIECE_ML) & (at_ring > CUT_CM2) & wide & flanked
    kept = [n for n in np.flatnonzero(candidates) if n and _bare(grid, labels == n, outside) <= BARE]
    return np.isin(labels, kept) if kept else None


def _bare(grid: CoarseGrid, piece: NDArray[np.bool_], outside: NDArray[np.bool_]) -> float:
    """Share of a piece's surface that adjoins the air outside."""
    surface = grid.disk(0).dilate(piece) & ~piece
    return int(np.count_nonzero(surface & outside)) / max(1, int(np.count_nonzero(surface)))


def _sides(average: NDArray[np.float32]) -> NDArray[np.uint8]:
    """On how many of its four sides in the plane a block has tissue of the body."""
    tissue = largest(average > TISSUE_HU)
    count = np.zeros(average.shape, np.uint8)
    if tissue is not None:
        for axis in (1, 2):
            count += np.maximum.accumulate(tissue, axis=axis)
            count += np.flip(np.maximum.accumulate(np.flip(tissue, axis), axis=axis), axis)
    return count


def _beyond(average: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Blocks that padding fills, or touches at the edge of a round field of view, ``[y, x]``."""
    beyond: NDArray[np.bool_] = ndimage.binary_dilation(unseen(average)[0])
    return beyond


def _ring(average: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Blocks beside the border of the slices or beside padding that is there in every slice, ``[y, x]``."""
    beyond = np.pad(_beyond(average), 1, constant_values=True)
    ring: NDArray[np.bool_] = (ndimage.binary_dilation(beyond) & ~beyond)[1:-1, 1:-1]
    return ring


def _cut_sides(grid: CoarseGrid, average: NDArray[np.float32], lungs: NDArray[np.bool_]) -> bool:
    """Lung beside the border of the slices or beside padding that is there in every slice."""
    area_cm2 = np.count_nonzero(lungs & _ring(average)) * grid.spacing_mm[0] * grid.spacing_mm[1] / 100
    return bool(area_cm2 > CUT_CM2)
