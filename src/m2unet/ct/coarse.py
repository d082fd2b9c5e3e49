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
        fz, fy, fx = (min(n, max(1, round(block_mm / step))) for n, step in zip(shape, spacing_mm, strict=True))
        dz, dy, dx = spacing_mm
        return cls((z, y, x), (fz, fy, fx), (fz * dz, fy * dy, fx * dx))

    def average(self, array: NDArray[np.int16]) -> NDArray[np.float32]:
        """Mean of each block.

        Args:
            array: ``[z, y, x]`` of ``shape``.

        Returns:
            ``[ceil(z / fz), ceil(y / fy), ceil(x / fx)]`` float32.
        """
        counts = [np.diff(np.append(np.arange(0, n, f), n)) for n, f in zip(self.shape, self.factors, strict=True)]
        blocks = tuple(len(count) for count in counts)
        out = np.empty(blocks, dtype=np.float32)
        (fz, fy, fx), (_, height, width) = self.factors, self.shape
        padded = np.zeros((blocks[1] * fy, blocks[2] * fx), dtype=np.int32)
        for number in range(blocks[0]):
            # strided sums: some ten times faster than np.add.reduceat
            array[number * fz : (number + 1) * fz].sum(axis=0, dtype=np.int32, out=padded[:height, :width])
            rows = padded[0::fy].copy()
            for k in range(1, fy):
                rows += padded[k::fy]
            columns = rows[:, 0::fx].copy()
            for k in range(1, fx):
                columns += rows[:, k::fx]
            out[number] = columns
        out /= (counts[0][:, None, None] * counts[1][:, None] * counts[2]).astype(np.float32)
        return out

    def sample(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The value in the middle of each block of a full mask ``[z, y, x]``."""
        at = [np.minimum(np.arange(0, n, f) + f // 2, n - 1) for n, f in zip(self.shape, self.factors, strict=True)]
        return mask[np.ix_(*at)]

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

    def disk(self, mm: float) -> Disk:
        """In-plane disk of a radius nearest to ``mm``, at least one block."""
        ry, rx = (max(1, round(mm / step)) for step in self.spacing_mm[1:])
        rows = np.arange(-ry, ry + 1)
        reach = (rx + 0.5) * np.sqrt(1 - (rows / (ry + 0.5)) ** 2)
        return Disk(ry, rx, tuple(int(np.floor(width)) for width in reach))


@dataclass(frozen=True)
class Disk:
    """A flat disk, as the half-width of each of its rows.

    Attributes:
        ry, rx: radius in blocks.
        reach: half-width of rows -ry to ry.
    """

    ry: int
    rx: int
    reach: tuple[int, ...]

    def dilate(self, mask: NDArray[np.bool_], *, beyond: bool = False) -> NDArray[np.bool_]:
        """Every block within the disk of a True one, slice by slice; ``beyond`` is what lies beyond the border."""
        # a few shifted ORs over whole arrays: some ten times faster than scipy's binary_dilation
        wide = np.pad(mask, ((0, 0), (self.ry, self.ry), (self.rx, self.rx)), constant_values=beyond)
        height, width = mask.shape[1:]
        out = np.zeros(mask.shape, dtype=bool)
        for row, reach in enumerate(self.reach):
            band = wide[:, row : row + height]
            for column in range(self.rx - reach, self.rx + reach + 1):
                np.logical_or(out, band[:, :, column : column + width], out=out)
        return out

    def erode(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Every block whose disk is True throughout; beyond the border counts as True."""
        return ~self.dilate(~mask)

    def open(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Erosion, then dilation: what the disk fits into."""
        return self.dilate(self.erode(mask)) & mask

    def close(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Dilation, then erosion: gaps that the disk does not fit into are closed."""
        return self.erode(self.dilate(mask)) | mask
