"""How often each lobe is found at a place of its lung, counted over a pool of chests.

Places are relative, so that an atlas fits any chest and even a single slice: height between base and apex, and depth
and breadth within the box of that lung in that slice.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from m2unet.anatomy import LEFT_CODES, LOBE_CODES, RIGHT_CODES
from m2unet.models.lobe_atlas import SHAPE, LobeAtlas, bins, slice_box
from m2unet.phantom.randomised.pool import Chest

SMOOTH = 0.8
"""Standard deviation of the smoothing in bins."""
DOUBT = 0.02
"""Share that every lobe of the side is given everywhere: none is impossible."""


def build_atlas(chests: Iterable[Chest]) -> LobeAtlas:
    """Count the lobes of chests; an axial pixel in four is looked at."""
    counts = np.zeros((len(LOBE_CODES), *SHAPE), np.float64)
    for chest in chests:
        _count(chest, counts)
    counts = np.stack([gaussian_filter(lobe, SMOOTH, mode="nearest") for lobe in counts])
    share = np.zeros_like(counts, dtype=np.float32)
    for codes in (RIGHT_CODES, LEFT_CODES):
        rows = [code - 1 for code in codes]
        found = counts[rows] + 1e-3 * counts[rows].sum(axis=(1, 2, 3), keepdims=True) / np.prod(SHAPE)
        found /= found.sum(axis=0)
        share[rows] = (1 - DOUBT * len(rows)) * found + DOUBT
    return LobeAtlas(share)


def _count(chest: Chest, counts: NDArray[np.float64]) -> None:
    extent = chest.apex - chest.base
    for z in range(int(chest.base), int(chest.apex) + 1):
        plane = np.asarray(chest.maps[0, z, ::2, ::2])
        height = 2 * (z - chest.base) / extent - 1
        for codes in (RIGHT_CODES, LEFT_CODES):
            lung = np.isin(plane, codes)
            box = slice_box(lung)
            if box is None:
                continue
            y, x = np.nonzero(lung)
            at = bins(height, y, x, box)
            np.add.at(counts, (plane[y, x] - 1, *at), 1)
