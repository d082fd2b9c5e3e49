"""One CT volume in the package's own orientation, with an exact way back to the input's geometry.

Arrays are ``[z, y, x]``, HU, int16, LPS: x grows towards the patient's Left, y towards the back (Posterior),
z towards the head (Superior). An oblique scan is brought to the *nearest* such order by permuting and flipping axes
only, so no voxel is ever interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.findings import Finding
from m2unet.errors import ScanError


@dataclass(frozen=True)
class SourceGeometry:
    """How the input stored its voxels, and how the canonical array was made from them.

    All index-axis triples are in the *source array's* ``[k, j, i]`` order (slowest first), as SimpleITK hands it out.

    Attributes:
        shape: source array shape ``(k, j, i)``.
        spacing_mm: voxel spacing along ``(k, j, i)``.
        origin_mm: LPS position ``(x, y, z)`` of source voxel (0, 0, 0).
        direction: 3 x 3, column c is the LPS unit vector of source axis c in ``(i, j, k)`` order (ITK's convention).
        permutation: canonical = source.transpose(permutation), then flipped.
        flips: for each canonical axis (z, y, x), whether it was reversed after the transposition.
        format: ``nifti``, ``mha``, ``nrrd`` or ``dicom``, or ``memory``.
        path: where the input came from, None for memory.
        header: header facts worth keeping (DICOM: series UID, SOP instance UIDs in source slice order, ...).
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: NDArray[np.float64]
    permutation: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    format: str = "memory"
    path: str | None = None
    header: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Volume:
    """A chest CT in canonical orientation.

    Attributes:
        array: ``[z, y, x]`` int16, HU.
        spacing_mm: ``(z, y, x)``.
        origin_mm: LPS position ``(x, y, z)`` of voxel (0, 0, 0) of ``array``.
        direction: 3 x 3, column c is the LPS unit vector of canonical axis c in ``(x, y, z)`` order; near the identity.
            Its columns are at right angles except for a scan with a tilted gantry, whose slices are kept as they are.
        source: the input's own geometry.
        findings: quality findings gathered while reading.

    Raises:
        ScanError: if the array is not 3-D int16 or the spacing is not positive and finite.
    """

    array: NDArray[np.int16]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: NDArray[np.float64]
    source: SourceGeometry
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or self.array.dtype != np.int16:
            raise ScanError(
                "A volume needs a 3-D int16 array",
                found=f"{self.array.dtype} with shape {self.array.shape}",
                expected="int16 [z, y, x] in HU",
            )
        if not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise ScanError("Voxel spacing must be positive", found=self.spacing_mm, expected="(z, y, x) in mm")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Canonical array shape ``(z, y, x)``."""
        z, y, x = self.array.shape
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres; with a tilted gantry it is less than the product of the spacings."""
        return float(np.prod(self.spacing_mm) * abs(np.linalg.det(self.direction))) / 1000.0

    @cached_property
    def affine(self) -> NDArray[np.float64]:
        """4 x 4 matrix from homogeneous index ``(x, y, z, 1)`` to LPS millimetres."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction * np.asarray(self.spacing_mm[::-1])
        matrix[:3, 3] = self.origin_mm
        return matrix

    def to_source(self, array: NDArray[Any]) -> NDArray[Any]:
        """Bring an array on the canonical grid back to the input's own axis order and directions.

        Args:
            array: ``[z, y, x]`` of this volume's shape, any dtype.

        Returns:
            Contiguous array ``[k, j, i]`` of ``source.shape``; the exact inverse of how ``array`` was made.

        Raises:
            ScanError: if the shape differs from this volume's.
        """
        if array.shape != self.shape:
            raise ScanError("The array is not on this volume's grid", found=array.shape, expected=self.shape)
        axes = tuple(i for i, flip in enumerate(self.source.flips) if flip)
        return np.ascontiguousarray(np.flip(array, axes).transpose(np.argsort(self.source.permutation)))


def from_source(
    array: NDArray[Any],
    spacing_mm: tuple[float, float, float],
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    direction: NDArray[np.float64] | None = None,
    *,
    format: str = "memory",  # noqa: A002 - the field's word
    path: str | None = None,
    header: dict[str, Any] | None = None,
    findings: tuple[Finding, ...] = (),
) -> Volume:
    """Make a canonical volume from a source array by permuting and flipping its axes.

    Args:
        array: ``[k, j, i]`` HU, any integer or float dtype (rounded and clipped to int16).
        spacing_mm: along ``(k, j, i)``.
        origin_mm: LPS ``(x, y, z)`` of source voxel (0, 0, 0).
        direction: 3 x 3 in ITK's convention (columns are axes i, j, k); identity if None.
        format, path, header: see :class:`SourceGeometry`.
        findings: quality findings to carry along.

    Raises:
        ScanError: if the array is not 3-D.
    """
    if array.ndim != 3:
        raise ScanError("A CT volume has three axes", found=f"{array.ndim} axes", expected="3")
    matrix = np.eye(3) if direction is None else np.asarray(direction, dtype=np.float64).reshape(3, 3)
    owner = _nearest_axes(matrix)  # owner[p]: source axis (in i, j, k order) that runs along patient axis p (x, y, z)
    signs = [matrix[p, owner[p]] < 0 for p in range(3)]
    permutation = tuple(2 - owner[p] for p in (2, 1, 0))
    flips = (signs[2], signs[1], signs[0])
    canonical = np.flip(array.transpose(permutation), tuple(i for i, f in enumerate(flips) if f))
    corner = np.asarray(origin_mm, dtype=np.float64).copy()
    columns = matrix[:, owner].copy()
    for p in range(3):
        if signs[p]:
            steps = array.shape[2 - owner[p]] - 1
            corner += columns[:, p] * spacing_mm[2 - owner[p]] * steps
            columns[:, p] *= -1
    source = SourceGeometry(
        shape=(array.shape[0], array.shape[1], array.shape[2]),
        spacing_mm=spacing_mm,
        origin_mm=origin_mm,
        direction=matrix,
        permutation=(permutation[0], permutation[1], permutation[2]),
        flips=(bool(flips[0]), bool(flips[1]), bool(flips[2])),
        format=format,
        path=path,
        header=header or {},
    )
    z, y, x = (float(spacing_mm[axis]) for axis in permutation)
    return Volume(
        array=_to_int16(canonical),
        spacing_mm=(z, y, x),
        origin_mm=(float(corner[0]), float(corner[1]), float(corner[2])),
        direction=columns,
        source=source,
        findings=findings,
    )


def _nearest_axes(direction: NDArray[np.float64]) -> list[int]:
    """Assign one source axis to each patient axis so that the total |cosine| is greatest."""
    from scipy.optimize import linear_sum_assignment

    _, owner = linear_sum_assignment(-np.abs(direction))
    return [int(axis) for axis in owner]


def _to_int16(array: NDArray[Any]) -> NDArray[np.int16]:
    if array.dtype == np.int16:
        return np.ascontiguousarray(array)
    limits = np.iinfo(np.int16)
    whole = np.empty(array.shape, dtype=np.int16)
    for target, plane in zip(whole, array, strict=True):  # a slice at a time: floats are twice as large
        rounded = np.rint(plane) if np.issubdtype(array.dtype, np.floating) else plane
        target[:] = np.clip(rounded, limits.min, limits.max)
    return whole
