"""A scan as its file holds it, before it is brought into the package's orientation; and the limits of what is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.findings import Finding, QualityError, finding

MAX_VOXELS = 1 << 30
"""A header that declares more (1024 slices of 1024 x 1024) is refused before anything is allocated."""
POSSIBLE_MM = (0.05, 1000.0)
"""Voxel steps that any scanner could have meant; unusual ones within are only warned of."""

MAX_EXTENT_MM = (1200.0, 2500.0)
"""Of a scan across the body and along it: the widest fields of view have 0.8 m, the longest tables scan 2 m."""

MIN_EXTENT_MM = 50.0
"""No finely sampled scan across the body is narrower; one that is has its steps in another unit, e.g. centimetres."""

FINE_VOXELS = 200

Geometry = tuple[tuple[float, float, float], tuple[float, float, float], NDArray[np.float64]]
"""Spacing along ``(k, j, i)`` in mm, LPS ``(x, y, z)`` of voxel (0, 0, 0), unit vectors of i, j, k as columns."""


@dataclass(frozen=True)
class RawScan:
    """Values and geometry as stored.

    Attributes:
        array: ``[k, j, i]`` any real dtype, rescaled to HU if the file says how.
        spacing_mm: along ``(k, j, i)``.
        origin_mm: LPS ``(x, y, z)`` of voxel (0, 0, 0).
        direction: 3 x 3, columns are the LPS unit vectors of axes i, j, k.
        format: ``nifti``, ``mha``, ``nrrd`` or ``dicom``.
        header: facts worth keeping; may identify the patient's series, so never logged.
        findings: noticed while reading.
        stored_bits: of a stored value, 8 for a display picture.
    """

    array: NDArray[Any]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: NDArray[np.float64]
    format: str
    header: dict[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    stored_bits: int = 16


def volume_shape(sizes: Sequence[int]) -> tuple[int, int, int]:
    """Check declared sizes and take away trailing axes of one.

    Args:
        sizes: along (i, j, k, ...), fastest first.

    Returns:
        ``(k, j, i)``.

    Raises:
        QualityError: not one volume, or more voxels than are read.
    """
    kept = [int(size) for size in sizes]
    while len(kept) > 3 and kept[-1] == 1:
        kept.pop()
    said = " x ".join(map(str, sizes))
    if any(size < 1 for size in kept):
        raise QualityError([finding("unreadable", f"a header that declares {said} voxels")])
    if prod(kept) > MAX_VOXELS:
        found = f"a header that declares {said} voxels; at most 2^30 are read"
        raise QualityError([finding("too-large", found)])
    if len(kept) > 3:
        raise QualityError([finding("dimensions", f"{said}: {prod(kept[3:])} volumes in one file")])
    if len(kept) < 3 or kept[2] == 1:
        raise QualityError([finding("too-few-slices", f"one image of {kept[0]} x {kept[1] if len(kept) > 1 else 1}")])
    return kept[2], kept[1], kept[0]


def geometry(
    matrix: NDArray[np.float64], shape: tuple[int, int, int] | None = None, named: str = ""
) -> tuple[tuple[float, float, float], NDArray[np.float64]]:
    """Spacing and direction from index steps in LPS millimetres.

    Args:
        matrix: 3 x 3, columns are the steps along i, j, k.
        shape: ``(k, j, i)``, to check the extent too; to be called before memory is taken for the voxels.
        named: where the steps are from, for the message.

    Returns:
        Spacing along ``(k, j, i)`` and unit columns.

    Raises:
        QualityError: if a step or an extent is not possible (zero, not finite, microns or metres), or the axes lie in
            one plane.
    """
    steps = np.linalg.norm(matrix, axis=0)
    finite = np.isfinite(matrix).all() and (steps > 0).all()
    if not finite or abs(np.linalg.det(matrix / steps)) < 0.1:
        said = f"voxel steps of {_triple(steps)} mm, or axes that are no frame"
        raise QualityError([finding("bad-spacing", said + (f" ({named})" if named else ""))])
    i, j, k = (float(step) for step in steps)
    possible = (steps >= POSSIBLE_MM[0]).all() and (steps <= POSSIBLE_MM[1]).all()
    if shape is not None:
        possible = possible and _chest_sized(matrix / steps, steps, shape)
    if not possible:
        said = f"voxel steps of {_triple(steps)} mm (i, j, k)"
        if shape is not None:
            said += f" make a scan of {_triple(steps * shape[::-1])} mm"
        raise QualityError([finding("bad-spacing", said + (f" ({named})" if named else ""))])
    return (k, j, i), matrix / steps


def _chest_sized(direction: NDArray[np.float64], steps: NDArray[np.float64], shape: tuple[int, int, int]) -> bool:
    """Whether the extents are neither metres across the body nor those of a thumb."""
    counts = np.asarray(shape[::-1])
    extents = steps * counts
    along = int(np.abs(direction[2]).argmax())
    across = [axis for axis in range(3) if axis != along]
    if extents[along] > MAX_EXTENT_MM[1] or (extents[across] > MAX_EXTENT_MM[0]).any():
        return False
    return not ((extents[across] < MIN_EXTENT_MM) & (counts[across] >= FINE_VOXELS)).all()


def _triple(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
