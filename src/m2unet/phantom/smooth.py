"""Smooth random fields that are functions of the patient, not of the voxel grid.

A field is a lattice of normal deviates fixed in patient coordinates, interpolated with cubic B-splines. The same seed
gives the same field on every grid, so that one patient's lesions look alike in scans of different resolution.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Triple = tuple[float, float, float]

# Standard deviation of the interpolated lattice: the mean over phases of the sum of squared weights, on three axes.
_SPREAD = (151.0 / 315.0) ** 1.5


class SmoothField:
    """A random field of mean 0 and standard deviation 1 with structures of about twice ``scale_mm``.

    Args:
        rng: source of the lattice values; consumed here, so the field is fixed afterwards.
        low_mm: lowest corner ``(z, y, x)`` of the box where the field is wanted; beyond it the edge value continues.
        high_mm: highest corner.
        scale_mm: distance of the lattice points.
    """

    def __init__(self, rng: np.random.Generator, low_mm: Triple, high_mm: Triple, scale_mm: float) -> None:
        self.scale_mm = scale_mm
        self.low_mm = tuple(low - 2 * scale_mm for low in low_mm)
        counts = [int(np.ceil((high - low) / scale_mm)) + 4 for low, high in zip(self.low_mm, high_mm, strict=True)]
        self.lattice: FloatArray = rng.standard_normal(counts, dtype=np.float32) / np.float32(_SPREAD)

    def on(self, z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
        """The field on the grid spanned by three coordinate axes in mm.

        Returns:
            float32 ``[len(z), len(y), len(x)]``.
        """
        depth, height, width = (
            spline_weights(axis, low, self.scale_mm, count)
            for axis, low, count in zip((z, y, x), self.low_mm, self.lattice.shape, strict=True)
        )
        rows, columns = self.lattice.shape[1:]
        planes = (depth @ self.lattice.reshape(len(self.lattice), -1)).reshape(len(z), rows, columns)
        return np.matmul(np.matmul(height, planes), width.T)


def spline_weights(axis: FloatArray, low: float, step: float, count: int) -> FloatArray:
    """Cubic B-spline weights of lattice points ``low + step * k`` at the positions ``axis``.

    Returns:
        float32 ``[len(axis), count]``; every row sums to 1.
    """
    position = np.clip((np.asarray(axis, dtype=np.float64) - low) / step, 1.0, count - 2.000001)
    cell = np.floor(position).astype(int)
    t = position - cell
    taps = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    weights = np.zeros((len(position), count), dtype=np.float32)
    rows = np.arange(len(position))
    for offset, tap in zip((-1, 0, 1, 2), taps, strict=True):
        weights[rows, cell + offset] = tap
    return weights
