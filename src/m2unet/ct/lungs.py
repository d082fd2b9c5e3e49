"""The lungs, coarsely and classically: air inside the body, without trachea and bowel gas.

No learning is involved, so this serves before any model: to check that a scan holds whole lungs, and as the box that
positions are measured in. Dense disease is not air and is missed; the box of both lungs together suffers least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2unet.ct.coarse import CoarseGrid

AIR_HU = -350.0
"""Averaged over a block: below is air-filled lung (ground glass included), airway, gas, or outside."""

GAS_HU = -965.0
"""Regions whose median lies below hold gas alone (airway, stomach, bowel), not lung."""

AIRWAY_RADIUS_MM = 11.0
"""An opening of this radius removes the trachea (up to 2.7 cm wide with disease) and leaves the lungs."""

LEAST_ML = 100.0
"""Less air-filled lung than this in the whole scan counts as none."""

PIECE_ML = 10.0
"""Smaller pieces are left out."""

CUT_CM2 = 3.0
"""A lung with more than this area on a border of the scan is cut off there."""


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
        The lungs, precise to about 2.5 mm, or None if there is less than 100 ml of lung-like air.
    """
    grid = CoarseGrid.fitting(array.shape, spacing_mm)
    fz, fy, fx = grid.factors
    return lungs_on(grid, grid.average(array), body_mask[fz // 2 :: fz, fy // 2 :: fy, fx // 2 :: fx])


def lungs_on(grid: CoarseGrid, average: NDArray[np.float32], body: NDArray[np.bool_]) -> Lungs | None:
    """The lungs from a coarse average and a coarse body; see :func:`find_lungs`."""
    inside = np.zeros(average.shape, dtype=bool)
    z, y, x = (min(a, b) for a, b in zip(body.shape, average.shape, strict=True))
    inside[:z, :y, :x] = body[:z, :y, :x]
    lungs = _lungs(grid, average, inside & (average < AIR_HU))
    block_ml = float(np.prod(grid.spacing_mm)) / 1000
    if lungs is None or lungs.sum() * block_ml < LEAST_ML:
        return None
    low, high = grid.box(lungs)
    slice_cm2 = grid.spacing_mm[1] * grid.spacing_mm[2] / 100
    return Lungs(
        mask_coarse=lungs,
        grid=grid,
        low=low,
        high=high,
        ml=float(lungs.sum() * block_ml),
        cut_top=bool(lungs[-1].sum() * slice_cm2 > CUT_CM2),
        cut_bottom=bool(lungs[0].sum() * slice_cm2 > CUT_CM2),
        cut_sides=_cut_sides(grid, average, lungs),
    )


def _lungs(grid: CoarseGrid, average: NDArray[np.float32], air: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Pieces of air wider than an airway, lung-like in density, at the height of the largest."""
    ball = _ball(grid, AIRWAY_RADIUS_MM)
    core = ndimage.binary_erosion(air, ball, border_value=1)
    regrown = ndimage.binary_dilation(core, _ball(grid, AIRWAY_RADIUS_MM * 1.3)) & air
    labels, count = ndimage.label(regrown)
    if count == 0:
        return None
    numbers = np.arange(1, count + 1)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * float(np.prod(grid.spacing_mm)) / 1000
    medians = np.asarray(ndimage.median(average, labels, numbers))
    lung_like = (sizes >= PIECE_ML) & (medians > GAS_HU)
    if not lung_like.any():
        return None
    main = int(np.where(lung_like, sizes, 0).argmax())
    slices = ndimage.find_objects(labels)
    low, high = slices[main][0].start, slices[main][0].stop
    kept = []
    for index in np.flatnonzero(lung_like):
        start, stop = slices[index][0].start, slices[index][0].stop
        shared = min(stop, high) - max(start, low)
        if shared >= 0.5 * (stop - start) or shared >= 0.5 * (high - low):
            kept.append(numbers[index])
    return np.isin(labels, kept)


def _ball(grid: CoarseGrid, radius_mm: float) -> NDArray[np.bool_]:
    """In-plane disk: thick slices would make a ball of one slice anyway, and airways run mostly across the slices."""
    ry, rx = grid.radius(radius_mm)
    y, x = np.ogrid[-ry : ry + 1, -rx : rx + 1]
    return ((y / (ry + 0.5)) ** 2 + (x / (rx + 0.5)) ** 2 <= 1)[None]


def _cut_sides(grid: CoarseGrid, average: NDArray[np.float32], lungs: NDArray[np.bool_]) -> bool:
    """Lung beside the border of the slices or beside padding that is there in every slice."""
    beyond = np.pad((average <= -1024).all(axis=0), 1, constant_values=True)
    ring = ndimage.binary_dilation(beyond)[1:-1, 1:-1]
    area_cm2 = np.count_nonzero(lungs & ring) * grid.spacing_mm[0] * grid.spacing_mm[1] / 100
    return bool(area_cm2 > CUT_CM2)
