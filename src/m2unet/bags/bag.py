"""A bag: the patches of one scan, as NumPy arrays, before batching."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Bag:
    """Patches drawn from one scan.

    Attributes:
        scan_id: which scan.
        patches: ``[n, H, W]`` int16 HU, axial.
        lobes: ``[n, H, W]`` uint8 lobe codes, or None for a scan without a mask.
        corners: ``[n, 3]`` int32, (z, y, x) of each patch's first voxel in the stored array; y and x may be negative
            where the stored slice is smaller than a patch and was padded with air.
        reference: ``[2, 3]`` float32, low and high corner (z, y, x), in stored voxels, of the box that position is
            measured in; None without position.
        severity: 1 severe, 0 non-severe, -1 unknown.
    """

    scan_id: str
    patches: NDArray[np.int16]
    lobes: NDArray[np.uint8] | None
    corners: NDArray[np.int32]
    reference: NDArray[np.float32] | None
    severity: int

    def __len__(self) -> int:
        return len(self.patches)
