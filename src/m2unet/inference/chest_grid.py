"""The grid that the whole-chest network works on: 3 mm between slices, 2 mm in the plane, cropped to the body.

Thick slices stay as they are: slices interpolated between them show every fissure twice, half as clear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.body import body_on
from m2unet.ct.coarse import CoarseGrid
from m2unet.ct.resample import Weights, area_weights, linear_weights, resample_plane
from m2unet.ct.volume import Volume

STEP_MM = 3.0
THICK_MM = 4.5
"""Slices at least so far apart are worked on one by one."""
NEIGHBOUR_MM = 6.0
"""From a slice to its next channel, as in training."""
PIXEL_MM = 2.0
MARGIN_MM = 12.0
"""Room left around the body."""
OUTLINE_HU = -500.0

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ChestGrid:
    """A volume on the working grid, and the way back.

    Attributes:
        hu: ``[z, y, x]`` float32, averaged over each working voxel, interpolated where the scan is coarser.
        volume_shape: of the volume.
        spacing_mm: of the volume.
        window: ``(y0, y1, x0, x1)``, the part of the volume's plane that is covered.
        step_mm: distance of the working slices; the scan's own extent divided evenly, or its slices' distance.
    """

    hu: FloatArray
    volume_shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    window: tuple[int, int, int, int]
    step_mm: float

    @property
    def neighbour(self) -> int:
        """Working slices from a slice to its next channel."""
        return max(1, round(NEIGHBOUR_MM / self.step_mm))

    @property
    def voxel_ml(self) -> float:
        """Volume of a working voxel."""
        return self.step_mm * PIXEL_MM**2 / 1000

    def levels(self, z: int) -> tuple[int, int, float]:
        """The two working slices around slice ``z`` of the volume, and the weight of the second."""
        at = (z + 0.5) * self.spacing_mm[0] / self.step_mm - 0.5
        at = float(np.clip(at, 0, len(self.hu) - 1))
        low = min(int(at), max(len(self.hu) - 2, 0))
        return low, min(low + 1, len(self.hu) - 1), at - low

    def plane_weights(self) -> tuple[Weights, Weights]:
        """Sparse weights from the working plane to the window of the volume's plane."""
        y0, y1, x0, x1 = self.window
        _, dy, dx = self.spacing_mm
        rows = linear_weights(self.hu.shape[1], y1 - y0, dy / PIXEL_MM)
        return rows, linear_weights(self.hu.shape[2], x1 - x0, dx / PIXEL_MM)


def to_chest_grid(volume: Volume) -> ChestGrid:
    """Bring a volume to the working grid."""
    depth = volume.shape[0]
    dz, dy, dx = volume.spacing_mm
    window = _window(volume)
    y0, y1, x0, x1 = window
    count = depth if dz >= THICK_MM else max(1, round(depth * dz / STEP_MM))
    step = depth * dz / count
    rows = area_weights(y1 - y0, int(np.ceil((y1 - y0) * dy / PIXEL_MM)), PIXEL_MM / dy)
    columns = area_weights(x1 - x0, int(np.ceil((x1 - x0) * dx / PIXEL_MM)), PIXEL_MM / dx)
    through = area_weights(depth, count, step / dz).tocsr()
    hu = np.zeros((count, rows.shape[0], columns.shape[0]), np.float32)
    for target in range(count):
        span = slice(through.indptr[target], through.indptr[target + 1])
        plane = np.zeros((y1 - y0, x1 - x0), np.float32)
        for z, weight in zip(through.indices[span], through.data[span], strict=True):
            if weight:
                plane += weight * volume.array[z, y0:y1, x0:x1]
        hu[target] = resample_plane(plane[None], rows, columns)[0]
    return ChestGrid(hu, volume.shape, volume.spacing_mm, window, step)


def _window(volume: Volume) -> tuple[int, int, int, int]:
    """The body's box with a margin; the whole plane where there is no body."""
    grid = CoarseGrid.fitting(volume.shape, volume.spacing_mm)
    body = body_on(grid, grid.average(volume.array), OUTLINE_HU)
    if body is None:
        return 0, volume.shape[1], 0, volume.shape[2]
    low, high = grid.box(body)
    ends = []
    for axis in (1, 2):
        margin = MARGIN_MM / volume.spacing_mm[axis]
        ends += [max(0, int(low[axis] - margin)), min(volume.shape[axis], int(np.ceil(high[axis] + margin)))]
    return ends[0], ends[1], ends[2], ends[3]
