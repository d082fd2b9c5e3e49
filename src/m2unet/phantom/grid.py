"""The voxel grid a phantom is drawn on, and the tissues drawn on it.

Patient coordinates are millimetres: x grows to the Left (0 = midline), y to the back (Posterior, 0 = middle of the
thorax from front to back), z to the head (Superior, 0 = lowest point of the lungs).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from m2unet.errors import M2UNetError

Triple = tuple[float, float, float]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """A regular grid in patient coordinates, axes in the order ``(z, y, x)``.

    Attributes:
        shape: number of voxels along ``(z, y, x)``.
        spacing_mm: distance between voxel centres along ``(z, y, x)``.
        origin_mm: patient coordinates ``(z, y, x)`` of the centre of voxel (0, 0, 0).

    Raises:
        M2UNetError: if a size or spacing is not positive and finite.
    """

    shape: tuple[int, int, int]
    spacing_mm: Triple
    origin_mm: Triple

    def __post_init__(self) -> None:
        lengths = (len(self.shape), len(self.spacing_mm), len(self.origin_mm))
        numbers = np.array([*self.shape, *self.spacing_mm], dtype=float)
        if lengths != (3, 3, 3) or not np.isfinite([*numbers, *self.origin_mm]).all() or (numbers <= 0).any():
            raise M2UNetError(
                "A phantom grid needs three positive sizes and spacings",
                found=f"shape {self.shape}, spacing {self.spacing_mm}, origin {self.origin_mm}",
                expected="(z, y, x) triples of positive, finite numbers",
            )

    def axes(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Voxel-centre coordinates along z, y and x: three 1-D float32 arrays in mm."""
        z, y, x = (
            (start + step * np.arange(count)).astype(np.float32)
            for count, step, start in zip(self.shape, self.spacing_mm, self.origin_mm, strict=True)
        )
        return z, y, x

    def slab(self, first: int, last: int) -> Grid:
        """The slices ``first`` to ``last - 1`` of this grid, as a grid of their own."""
        origin = (self.origin_mm[0] + first * self.spacing_mm[0], *self.origin_mm[1:])
        return replace(self, shape=(last - first, *self.shape[1:]), origin_mm=origin)

    @classmethod
    def around(cls, low_mm: Triple, high_mm: Triple, spacing_mm: Triple) -> Grid:
        """The smallest grid of the given spacing that covers the box ``low_mm`` to ``high_mm`` (both ``(z, y, x)``)."""
        counts = [
            int(np.ceil((high - low) / step)) + 1 for low, high, step in zip(low_mm, high_mm, spacing_mm, strict=True)
        ]
        return cls(shape=(counts[0], counts[1], counts[2]), spacing_mm=spacing_mm, origin_mm=low_mm)


@dataclass
class Tissues:
    """A healthy chest on a grid; every array is ``[z, y, x]`` of the grid's shape.

    Attributes:
        hu: float32, Hounsfield units without noise, table or disease; air outside the body is -1000.
        lobes: uint8, 1-5 as :mod:`m2unet.anatomy`, 6 airway lumen, 0 elsewhere.
        pleura_mm: float32, depth below the nearest pleural surface (ribs, diaphragm, mediastinum) inside the lungs,
            0 outside.
        fissure_mm: float32, distance to the nearest fissure inside the lungs, ``FAR_MM`` elsewhere.
        vessels: bool, pulmonary vessels inside the lobes.
    """

    hu: FloatArray
    lobes: NDArray[np.uint8]
    pleura_mm: FloatArray
    fissure_mm: FloatArray
    vessels: NDArray[np.bool_]


FAR_MM = 999.0
"""``Tissues.fissure_mm`` outside the lungs."""
