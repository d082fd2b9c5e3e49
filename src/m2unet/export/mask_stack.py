"""Overlapping masks of a scan, a bit each, that unfold slice by slice: unfolded at once they take a byte each a voxel.

highdicom wants an array ``[slice, row, column, segment]``. It asks it for its largest value, for sums over the segments
and for one slice after the other, so that is what :class:`MaskStack` answers without unfolding; whatever else NumPy
asks gets the whole array.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 8
_CHUNK = 1 << 20
_HELD = np.array([value.bit_count() for value in range(1 << MOST)], dtype=np.uint8)


class MaskStack:
    """Up to eight masks over the same slices.

    Args:
        bits: ``[slice, row, column]`` uint8, bit k set where mask k is.
        count: how many masks.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, bits: NDArray[np.uint8], count: int) -> None:
        self.bits = bits
        self.count = count

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(slices, rows, columns, masks)``."""
        return (*self.bits.shape, self.count)

    def reordered(self, order: NDArray[np.int64]) -> MaskStack:
        """The same masks with their slices in another order."""
        return MaskStack(self.bits[order], self.count)

    def __len__(self) -> int:
        return len(self.bits)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """The slices of an index of the first axis, ``[..., row, column, mask]`` 0 or 1."""
        if isinstance(index, tuple):
            return np.asarray(self)[index]
        return np.unpackbits(self.bits[index][..., None], axis=-1, count=self.count, bitorder="little")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The whole array, new each time."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def max(self) -> int:
        """1 if anything is set."""
        return int(any(plane.any() for plane in self.bits))

    def sum(self, axis: int) -> NDArray[np.uint8]:
        """Masks that hold each voxel, ``[slice, row, column]``; over the last axis only."""
        if axis not in (-1, 3):
            raise NotImplementedError("masks are summed over the last axis only")
        return np.stack([_HELD[plane] for plane in self.bits])

    def digest(self, number: int) -> str:
        """SHA-256 of one mask, packed to bits in the order of its voxels."""
        told, flat = hashlib.sha256(), self.bits.reshape(-1)
        for start in range(0, flat.size, _CHUNK):  # whole bytes each
            told.update(np.packbits((flat[start : start + _CHUNK] >> number) & 1).tobytes())
        return told.hexdigest()
