"""Parts of a scan kept as a box and what is in it, so that a small part takes little memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY
from m2unet.quantify.lobes import bounding_box


def code_boxes(codes: NDArray[np.uint8]) -> dict[int, tuple[slice, slice, slice]]:
    """Smallest box around each lobe code and the airway, of those present, without an array for any of them."""
    from scipy.ndimage import find_objects

    boxes = find_objects(codes, max_label=AIRWAY)
    return {code: (box[0], box[1], box[2]) for code, box in enumerate(boxes, 1) if box is not None}


def union_box(boxes: Iterable[tuple[slice, slice, slice]]) -> tuple[slice, slice, slice] | None:
    """Smallest box around boxes; None around none."""
    sides = [
        slice(min(side.start for side in axis), max(side.stop for side in axis)) for axis in zip(*boxes, strict=True)
    ]
    return (sides[0], sides[1], sides[2]) if sides else None


@dataclass(frozen=True)
class Part:
    """A mask that is true in a small part of the scan only.

    Attributes:
        shape: ``(z, y, x)`` of the scan.
        box: where something may be true; None where nothing is.
        inside: ``[z, y, x]`` bool, the mask in that box.
    """

    shape: tuple[int, int, int]
    box: tuple[slice, slice, slice] | None = None
    inside: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Part:
        """From the whole mask ``[z, y, x]``."""
        z, y, x = mask.shape
        box = bounding_box(mask)
        return cls((z, y, x), box, None if box is None else mask[box])

    def whole(self) -> NDArray[np.bool_]:
        """The mask of the whole scan, ``[z, y, x]`` bool."""
        mask = np.zeros(self.shape, dtype=np.bool_)
        if self.box is not None:
            mask[self.box] = self.inside
        return mask

    def take_from(self, mask: NDArray[np.bool_], box: tuple[slice, slice, slice]) -> None:
        """Set to false what is true here.

        Args:
            mask: ``[z, y, x]`` bool of a box of the scan; changed.
            box: that box.
        """
        if self.box is None or self.inside is None:
            return
        both = [
            slice(max(a.start, b.start), max(a.start, b.start, min(a.stop, b.stop)))
            for a, b in zip(self.box, box, strict=True)
        ]
        own, other = (
            tuple(slice(s.start - a.start, s.stop - a.start) for s, a in zip(both, sides, strict=True))
            for sides in (self.box, box)
        )
        mask[other] &= ~self.inside[own]
