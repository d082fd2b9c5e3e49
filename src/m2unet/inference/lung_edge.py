"""From scores on the working grid to lobes on the volume's grid, with the lungs' edge taken from the scan itself.

The network's edge is as coarse as its grid. Where the lung beside the edge holds air, the scan says where it ends: a
voxel near the edge is lung if it is dark. Where the lung beside it does not hold air (consolidation), the network's
edge stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from m2unet.anatomy import AIRWAY
from m2unet.ct.resample import resample_plane
from m2unet.ct.volume import Volume
from m2unet.inference.central_airway import complete_central_airway
from m2unet.inference.chest_grid import PIXEL_MM
from m2unet.inference.whole_chest import ChestScores, hard_codes

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class EdgeConfig:
    """How the edge is refined.

    Attributes:
        refine: off leaves the network's edge.
        dark_hu: below, a voxel near the edge is lung.
        aerated_hu: below, a working voxel holds air.
        aerated_share: least share of the lung nearby that must hold air for the scan to decide.
        near_mm: standard deviation of "nearby".
        least_near: less lung nearby than this share, and the network's edge stays.
        outer: score of lung above which a dark voxel may become lung.
        inner: score of lung above which a bright voxel stays lung (vessels).
        smooth_mm: the scan is averaged over this width against noise.
    """

    refine: bool = True
    dark_hu: float = -400.0
    aerated_hu: float = -500.0
    aerated_share: float = 0.6
    near_mm: float = 8.0
    least_near: float = 0.08
    outer: float = 0.03
    inner: float = 0.93
    smooth_mm: float = 1.5


def lobes_on_volume(volume: Volume, found: ChestScores, config: EdgeConfig | None = None) -> NDArray[np.uint8]:
    """Lobe codes 0-6 on the volume's grid, ``[z, y, x]`` uint8; the central airway is made whole."""
    settings = config or EdgeConfig()
    mask = np.zeros(volume.shape, np.uint8)
    y0, y1, x0, x1 = found.grid.window
    aerated = _aerated(found, settings) if settings.refine else None
    for z, planes, air in _planes(found, aerated):
        mask[z, y0:y1, x0:x1] = (
            hard_codes(planes)
            if air is None
            else _decide(planes, air, _smoothed(volume, z, found.grid.window, settings.smooth_mm), settings)
        )
    complete_central_airway(mask, volume.array, volume.spacing_mm)
    return mask


def score_planes(found: ChestScores) -> Iterator[tuple[int, FloatArray]]:
    """Slices of the volume that may show lung: their number, and class probabilities ``[7, y, x]`` in the window."""
    for z, planes, _ in _planes(found, None):
        yield z, planes


def _aerated(found: ChestScores, settings: EdgeConfig) -> FloatArray:
    """Share of the lung near each working voxel that holds air; 0 far from any lung."""
    lung = found.scores[1:AIRWAY].sum(axis=0, dtype=np.float32)
    sigma = (settings.near_mm / found.grid.step_mm, settings.near_mm / PIXEL_MM, settings.near_mm / PIXEL_MM)
    core = np.where(lung > 0.5, lung, 0).astype(np.float32)
    total = gaussian_filter(core, sigma, truncate=2.5)
    dark = gaussian_filter(core * (found.grid.hu < settings.aerated_hu), sigma, truncate=2.5)
    return np.where(total > settings.least_near, dark / np.maximum(total, 1e-6), 0).astype(np.float32)


def _planes(found: ChestScores, aerated: FloatArray | None) -> Iterator[tuple[int, FloatArray, FloatArray | None]]:
    """Slice by slice of the volume: scores ``[7, y, x]`` and aeration on the window of its plane."""
    grid = found.grid
    weights = grid.plane_weights()
    for z in range(grid.volume_shape[0]):
        low, high, share = grid.levels(z)
        near = found.scores[:, low].astype(np.float32)
        if share > 0:
            near += np.float32(share) * (found.scores[:, high].astype(np.float32) - near)
        if not (near[1:AIRWAY].max() > 0.01):
            continue
        air = None
        if aerated is not None:
            mixed = aerated[low] + np.float32(share) * (aerated[high] - aerated[low])
            air = resample_plane(mixed[None], *weights)[0]
        yield z, resample_plane(near, *weights), air


def _smoothed(volume: Volume, z: int, window: tuple[int, int, int, int], mm: float) -> FloatArray:
    y0, y1, x0, x1 = window
    plane = volume.array[z, y0:y1, x0:x1].astype(np.float32)
    size = [2 * int(mm / step / 2) + 1 for step in volume.spacing_mm[1:]]  # odd: nothing is moved
    return np.asarray(uniform_filter(plane, size), np.float32)


def _decide(planes: FloatArray, air: FloatArray, hu: FloatArray, settings: EdgeConfig) -> NDArray[np.uint8]:
    lobe = planes[1:AIRWAY].argmax(0).astype(np.uint8) + 1
    lung = planes[1:AIRWAY].sum(axis=0)
    airway = planes[AIRWAY]
    codes = hard_codes(planes)
    trust = air >= settings.aerated_share
    dark = hu < settings.dark_hu
    gained = trust & dark & (lung > settings.outer) & (airway < np.maximum(lung, 0.1))
    codes[gained] = lobe[gained]
    lost = trust & ~dark & (lung < settings.inner)
    codes[lost] = 0
    return codes
