"""A coarse copy of a volume: voxels averaged in blocks, for finding body and lungs quickly and in spite of noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_MM = 2.5
"""Edge that blocks are chosen to come nearest to."""


@dataclass(frozen=True)
class CoarseGrid:
    """Blocks of whole voxels; the last block of an axis may be smaller.

    Attributes:
        shape: of the full array, ``(z, y, x)``.
        factors: voxels a block, ``(z, y, x)``.
        spacing_mm: of the blocks, ``(z, y, x)``.
    """

    shape: tuple[int, int, int]
    factors: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def fitting(
        cls, shape: tuple[int, ...], spacing_mm: tuple[float, float, float], block_mm: float = BLOCK_MM
    ) -> CoarseGrid:
        """The grid whose blocks come nearest to ``block_mm`` without a block smaller than a voxel."""
        z, y, x = shape
        fz, fy, fx = (max(1, round(block_mm / step)) for step in spacing_mm)
        dz, dy, dx = spacing_mm
        return cls((z, y, x), (fz, fy, fx), (fz * dz, fy * dy, fx * dx))

    def average(self, array: NDArray[np.int16]) -> NDArray[np.float32]:
        """Mean of each block.

        Args:
            array: ``[z, y, x]`` of ``shape``.

        Returns:
            ``[ceil(z / fz), ceil(y / fy), ceil(x / fx)]`` float32.
        """
        fz, fy, fx = self.factors
        starts = [np.arange(0, n, f) for n, f in zip(self.shape, self.factors, strict=True)]
        counts = [np.diff(np.append(start, n)) for start, n in zip(starts, self.shape, strict=True)]
        out = np.empty([len(start) for start in starts], dtype=np.float32)
        for number, z in enumerate(starts[0]):
            slab = array[z : z + fz].sum(axis=0, dtype=np.int32)
            rows = np.add.reduceat(slab, starts[1], axis=0) if fy > 1 else slab
            out[number] = np.add.reduceat(rows, starts[2], axis=1) if fx > 1 else rows
        out /= (counts[0][:, None, None] * counts[1][:, None] * counts[2]).astype(np.float32)
        return out

    def expand(self, coarse: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Give every voxel its block's value: ``[z, y, x]`` of ``shape``."""
        fz, fy, fx = self.factors
        plane = coarse.repeat(fy, axis=1)[:, : self.shape[1]].repeat(fx, axis=2)[:, :, : self.shape[2]]
        return plane.repeat(fz, axis=0)[: self.shape[0]]

    def box(self, coarse: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Low corner and one past the high corner ``(z, y, x)``, in voxels of the full array, of a non-empty mask."""
        low, high = np.zeros(3), np.zeros(3)
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            at = np.flatnonzero(coarse.any(axis=others))
            low[axis] = at[0] * self.factors[axis]
            high[axis] = min((at[-1] + 1) * self.factors[axis], self.shape[axis])
        return low, high

    def radius(self, mm: float) -> tuple[int, int]:
        """In-plane radius ``(y, x)`` in blocks nearest to ``mm``, at least one block."""
        return max(1, round(mm / self.spacing_mm[1])), max(1, round(mm / self.spacing_mm[2]))
