"""One lobe mask of several masks that may overlap."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY
from m2unet.cohort.mask_files.segments import LabelFile
from m2unet.ct.findings import Finding, finding
from m2unet.errors import ScanError

MOST_OVERLAP = 0.02
"""Share of all lobe voxels that may lie in two lobes: borders do, two copies of one lobe do not."""


OVERLAP_MEND = "in 3D Slicer's Segment Editor set 'Modify other segments' to 'Overwrite all', and save again"


class Merged:
    """Lobes put together one by one; a voxel of several belongs to the first.

    Args:
        shape: ``(z, y, x)`` of the scan.
        file: name, for messages.
    """

    def __init__(self, shape: tuple[int, int, int], file: str) -> None:
        self.mask = np.zeros(shape, dtype=np.int16)
        self.file_name = file
        self.doubly = 0

    def add(self, inside: NDArray[np.bool_], code: int, where: tuple[slice | int, ...] = ()) -> None:
        """Add a structure: ``inside`` is true where it lies, on the part ``where`` of the grid."""
        part = self.mask[where]
        free = part == 0
        if code != AIRWAY:
            over_airway = part == AIRWAY
            self.doubly += int(np.count_nonzero(inside & ~free & ~over_airway & (part != code)))
            free |= over_airway
        part[inside & free] = code

    def file(self, names: Mapping[int, str], findings: tuple[Finding, ...] = ()) -> LabelFile:
        """The finished mask, in our codes.

        Args:
            names: the file's name of each code.
            findings: of its reading.

        Raises:
            ScanError: lobes overlap by more than their borders.
        """
        lobes = int(np.count_nonzero((self.mask > 0) & (self.mask < AIRWAY)))
        if self.doubly > MOST_OVERLAP * max(lobes, 1):
            raise ScanError(
                f"The lobes of {self.file_name} overlap",
                found=f"{100 * self.doubly / max(lobes, 1):.0f} % of their voxels lie in two lobes",
                mend=OVERLAP_MEND,
            )
        if self.doubly:
            said = f"{self.doubly} voxels lie in two lobes; the first keeps them"
            findings = (*findings, finding("mask-overlap", said))
        return LabelFile(self.mask, {code: code for code in names}, dict(names), findings, merged=True)
