"""The central airway, made whole in the image: the network sees parts of it and takes others for lung.

Slice by slice the lumen is one piece of air with a wall around it. A piece that the network calls airway, or that lies
over the lumen of the slice before, is airway altogether.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects, label, uniform_filter

from m2unet.anatomy import AIRWAY


@dataclass(frozen=True)
class LumenConfig:
    """What a lumen looks like in a slice.

    Attributes:
        air_hu: below is air; most of the lung is brighter.
        cm2: least and greatest area; tracheas of adults have 1 to 5.
        seeded: least share of it that the network calls airway, where no slice beside it is known.
        overlap: least share of it, or of the slice before's, that both have in common.
        growth: how many times larger or smaller than in the slice before it may be.
        wall_mm: width of the ring that is looked at.
        wall_hu, wall_share: least share of the ring that is brighter than this.
        smooth_mm: the scan is averaged over this width against noise.
        around_mm: how far from airway known a lumen may reach.
        rim_mm, rim_hu: blurred edge that belongs to the lumen: as wide, and darker than this.
    """

    air_hu: float = -850.0
    cm2: tuple[float, float] = (0.5, 7.0)
    seeded: float = 0.3
    overlap: float = 0.5
    growth: float = 2.0
    wall_mm: float = 2.0
    wall_hu: float = -600.0
    wall_share: float = 0.6
    smooth_mm: float = 1.5
    around_mm: float = 15.0
    rim_mm: float = 1.0
    rim_hu: float = -400.0


def complete_central_airway(
    mask: NDArray[np.uint8],
    array: NDArray[np.int16],
    spacing_mm: tuple[float, float, float],
    config: LumenConfig | None = None,
) -> int:
    """Give the lumen of trachea and main bronchi to the airway, in place; returns the voxels that changed.

    Only between the lowest and the highest slice with airway, and above: below, bronchi are part of the lobes.

    Args:
        mask: ``[z, y, x]`` lobe codes 0-6; z rises towards the head.
        array: ``[z, y, x]`` HU.
        spacing_mm: ``(z, y, x)``.
        config: the defaults if None.
    """
    settings = config or LumenConfig()
    held = np.flatnonzero((mask == AIRWAY).any(axis=(1, 2)))
    if not held.size:
        return 0
    changed = 0
    upwards = range(int(held[0]), len(mask))
    downwards = range(int(held[-1]), int(held[0]) - 1, -1)
    for levels in (upwards, downwards):
        before: NDArray[np.bool_] | None = None
        for z in levels:
            before = _lumen(mask[z], array[z], before, spacing_mm, settings)
            if before is None:
                continue
            changed += int((mask[z][before] != AIRWAY).sum())
            mask[z][before] = AIRWAY
    return changed


def _lumen(
    codes: NDArray[np.uint8],
    plane: NDArray[np.int16],
    before: NDArray[np.bool_] | None,
    spacing_mm: tuple[float, float, float],
    settings: LumenConfig,
) -> NDArray[np.bool_] | None:
    """``[y, x]`` bool, all lumens of a slice; None if there is none."""
    known = codes == AIRWAY if before is None else (codes == AIRWAY) | before
    box = find_objects(known.astype(np.uint8))
    if not box:
        return None
    pixel = spacing_mm[1:]
    rim = [int(settings.around_mm / step) for step in pixel]
    crop = tuple(slice(max(0, side.start - r), side.stop + r) for side, r in zip(box[0], rim, strict=True))
    width = [2 * round(settings.smooth_mm / step / 2) + 1 for step in pixel]
    hu = uniform_filter(plane[crop].astype(np.float32), width)
    pieces, count = label(hu < settings.air_hu)
    last = None if before is None else before[crop]
    found = np.zeros(codes.shape, np.bool_)
    for number in range(1, count + 1):
        piece = pieces == number
        if _is_lumen(piece, hu, codes[crop] == AIRWAY, last, pixel, settings):
            found[crop] |= _widened(piece, settings.rim_mm, pixel) & (hu < settings.rim_hu)
    return found if found.any() else None


def _is_lumen(
    piece: NDArray[np.bool_],
    hu: NDArray[np.float32],
    airway: NDArray[np.bool_],
    before: NDArray[np.bool_] | None,
    pixel: tuple[float, ...],
    settings: LumenConfig,
) -> bool:
    size = int(piece.sum())
    area = size * pixel[0] * pixel[1] / 100
    if not settings.cm2[0] <= area <= settings.cm2[1]:
        return False
    if piece[0].any() or piece[-1].any() or piece[:, 0].any() or piece[:, -1].any():
        return False
    seeded = int((piece & airway).sum()) >= settings.seeded * size
    if not seeded and (before is None or not _follows(piece, before, settings)):
        return False
    ring = _widened(piece, settings.wall_mm, pixel) & ~piece
    return float((hu[ring] > settings.wall_hu).mean()) >= settings.wall_share


def _follows(piece: NDArray[np.bool_], before: NDArray[np.bool_], settings: LumenConfig) -> bool:
    """Whether a piece goes on where a lumen of the slice before was."""
    pieces, _ = label(before)
    numbers, counts = np.unique(pieces[piece & before], return_counts=True)
    if not numbers.size:
        return False
    other = int((pieces == numbers[counts.argmax()]).sum())
    size, common = int(piece.sum()), int(counts.max())
    return common >= settings.overlap * min(size, other) and 1 / settings.growth <= size / other <= settings.growth


def _widened(piece: NDArray[np.bool_], mm: float, pixel: tuple[float, ...]) -> NDArray[np.bool_]:
    steps = [max(1, round(mm / step)) for step in pixel]
    return np.asarray(binary_dilation(piece, np.ones([2 * step + 1 for step in steps], np.bool_)))
