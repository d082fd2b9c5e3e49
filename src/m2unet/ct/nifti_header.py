"""The header of NIfTI-1, NIfTI-2 and Analyze 7.5: layout, units, and the ways in which it says how a scan lies.

Layout and the three ways of giving an orientation: the NIfTI-1 and NIfTI-2 header files, https://nifti.nimh.nih.gov.
Analyze 7.5 has the same layout without the orientation: https://analyzedirect.com/support/10.0Documents/Analyze_Resource_01.pdf
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.findings import Finding, QualityError, finding
from m2unet.ct.raw import Geometry, geometry
from m2unet.ct.sniff import is_analyze

DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
_UNIT_NAMES = {1: "metre", 2: "millimetre", 3: "micrometre"}

_APART_MM = 1.0
"""Corners of the scan may lie this far apart by two statements that are meant to agree; and half a voxel."""

_STEP = 0.01
"""Voxel steps may differ by this share."""


@dataclass(frozen=True)
class Header:
    """What is used of a header, as stored.

    Attributes:
        order: byte order, ``<`` or ``>``.
        layout: ``single`` (voxels behind the header), ``pair`` (in an ``.img``), or ``analyze`` (a pair without magic).
        sizes: along i, j, k, ...
        datatype: NIfTI code.
        pixdim: eight numbers, the first one the sign of the quaternion's third axis.
        offset: bytes before the voxels.
        slope, intercept: from stored values.
        units: code of the unit of length.
        codes: of qform and sform, 0 where there is none.
        quaternion: b, c, d and the offsets of the qform.
        rows: of the sform, twelve numbers.
        orient: Analyze's orientation code, 0 otherwise.
    """

    order: str
    layout: Literal["single", "pair", "analyze"]
    sizes: tuple[int, ...]
    datatype: int
    pixdim: tuple[float, ...]
    offset: int
    slope: float
    intercept: float
    units: int
    codes: tuple[int, int]
    quaternion: tuple[float, ...]
    rows: tuple[float, ...]
    orient: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a stored voxel."""
        return np.dtype(self.order + DTYPES[self.datatype])


def parse(data: bytes) -> Header:
    """Read a header.

    Args:
        data: its first 544 bytes, or all there is.

    Raises:
        QualityError: it is cut short, damaged, or contradicts itself about its voxels.
    """
    for order in "<>":
        size = struct.unpack(order + "i", data[:4])[0] if len(data) >= 348 else 0
        if size == 348:
            return _checked(_parse1(data, order), struct.unpack_from(order + "h", data, 72)[0])
        if size == 540 and len(data) >= 540:
            return _checked(_parse2(data, order), struct.unpack_from(order + "h", data, 14)[0])
    raise QualityError([finding("truncated", "the file ends inside its header, or the header is damaged")])


def _checked(header: Header, bits: int) -> Header:
    if header.datatype not in DTYPES:
        raise QualityError([finding("dimensions", f"voxels of NIfTI type {header.datatype}, not single real numbers")])
    expected = header.dtype.itemsize * 8
    if bits not in (0, expected):
        said = f"a header whose voxels have {bits} bits by bitpix and {expected} by datatype"
        raise QualityError([finding("unreadable", said)])
    if header.layout == "single" and header.offset < 348:
        said = f"a header whose voxels begin inside it (vox_offset {header.offset})"
        raise QualityError([finding("unreadable", said)])
    return header


def _parse1(data: bytes, order: str) -> Header:
    def take(form: str, at: int) -> tuple[Any, ...]:
        return struct.unpack_from(order + form, data, at)

    dims, datatype, pixdim = _sizes(take("8h", 40)), take("h", 70)[0], take("8f", 76)
    vox_offset, slope, intercept = take("3f", 108)
    if is_analyze(data):  # what NIfTI calls slope and orientation are other fields there, or empty
        nothing = ((0, 0), (0.0,) * 6, (0.0,) * 12)
        return Header(order, "analyze", dims, datatype, pixdim, _offset(vox_offset), 1.0, 0.0, 2, *nothing, data[252])
    return Header(
        order, _layout(data[344:348], b"1"), dims, datatype, pixdim, _offset(vox_offset), slope, intercept,
        data[123], take("2h", 252), take("6f", 256), take("12f", 280),
    )  # fmt: skip


def _parse2(data: bytes, order: str) -> Header:
    def take(form: str, at: int) -> tuple[Any, ...]:
        return struct.unpack_from(order + form, data, at)

    slope, intercept = take("2d", 176)
    return Header(
        order, _layout(data[4:8], b"2"), _sizes(take("8q", 16)), take("h", 12)[0], take("8d", 104),
        _offset(take("q", 168)[0]), slope, intercept, take("i", 500)[0], take("2i", 344), take("6d", 352),
        take("12d", 400),
    )  # fmt: skip


def _layout(magic: bytes, version: bytes) -> Literal["single", "pair"]:
    if magic[:3] in (b"n+" + version, b"ni" + version):
        return "single" if magic[1:2] == b"+" else "pair"
    raise QualityError([finding("unreadable", "a header without the NIfTI magic that is not Analyze's either")])


def _sizes(dims: tuple[int, ...]) -> tuple[int, ...]:
    if not 1 <= dims[0] <= 7:
        raise QualityError([finding("unreadable", f"a NIfTI header with {dims[0]} axes")])
    return tuple(dims[1 : dims[0] + 1])


def _offset(value: float) -> int:
    if not 0 <= value <= 1 << 30:
        raise QualityError([finding("unreadable", "a NIfTI header whose voxels begin nowhere in the file")])
    return int(value)


def rescale(header: Header) -> tuple[float, float] | None:
    """Slope and intercept; None where values are used as stored (a slope of zero, or of NaN as nibabel writes it).

    Raises:
        QualityError: an intercept that readers apply differently, or a slope or intercept that is no number.
    """
    slope, intercept = header.slope, header.intercept
    said = f"scl_slope is {slope:g} and scl_inter {intercept:g}"
    if (slope == 0 or np.isnan(slope)) and (intercept == 0 or np.isnan(intercept)):
        return None
    if not np.isfinite([slope, intercept]).all() or slope <= 0:
        raise QualityError([finding("bad-rescale", said)])
    return None if slope == 1 and intercept == 0 else (float(slope), float(intercept))


def orientation(header: Header, shape: tuple[int, int, int], findings: list[Finding]) -> Geometry:
    """Spacing, origin and direction, in LPS mm.

    The affine (sform) is used first, the quaternion (qform) second, as ITK and nibabel do; with neither, axes are
    assumed.

    Args:
        header: as parsed.
        shape: ``(k, j, i)``.
        findings: what is unknown or contradictory is added here.

    Raises:
        QualityError: voxel steps that are not possible.
    """
    unit = header.units & 7
    scale = _UNITS_MM.get(unit, 1.0)
    named = f"NIfTI unit: {_UNIT_NAMES[unit]}" if unit in _UNIT_NAMES else "NIfTI unit: none, mm assumed"
    matrix = _matrix(header, shape, scale, findings)
    matrix[:3] *= scale
    matrix[:2] *= -1  # RAS to LPS
    spacing, direction = geometry(matrix[:, :3], shape, named)
    x, y, z = (float(value) for value in matrix[:, 3])
    return spacing, (x, y, z), direction


def _matrix(header: Header, shape: tuple[int, int, int], scale: float, findings: list[Finding]) -> NDArray[np.float64]:
    """The 3 x 4 matrix to RAS in the header's unit."""
    if header.layout == "analyze":
        return _analyze_matrix(header, findings)
    sform, qform = _sform(header), _qform(header)
    if sform is not None:
        findings += _contradictions(header, sform, qform, shape, scale)
        return sform
    if qform is None:
        findings.append(finding("orientation-unknown", "a NIfTI header with neither qform nor sform"))
        return np.column_stack([np.diag(_steps(header) * [-1, -1, 1]), np.zeros(3)])
    if header.codes[1] > 0:
        said = f"the sform (code {header.codes[1]}) is no frame; the qform (code {header.codes[0]}) is used"
        findings.append(finding("contradictory-geometry", said))
    return qform


def _steps(header: Header) -> NDArray[np.float64]:
    return np.abs(np.asarray(header.pixdim[1:4], dtype=np.float64))


def _sform(header: Header) -> NDArray[np.float64] | None:
    rows = np.asarray(header.rows, dtype=np.float64).reshape(3, 4)
    if header.codes[1] <= 0 or not np.isfinite(rows).all() or abs(np.linalg.det(rows[:, :3])) == 0:
        return None
    return rows.copy()


def _qform(header: Header) -> NDArray[np.float64] | None:
    if header.codes[0] <= 0:
        return None
    flip = -1.0 if header.pixdim[0] < 0 else 1.0
    rotation = _rotation(header.quaternion[:3])
    if rotation is None:
        if _sform(header) is not None:
            return None
        raise QualityError([finding("bad-spacing", "a NIfTI qform that is no rotation")])
    matrix = rotation * (_steps(header) * np.array([1.0, 1.0, flip]))
    return np.column_stack([matrix, np.asarray(header.quaternion[3:], dtype=np.float64)])


def _rotation(quaternion: tuple[float, ...]) -> NDArray[np.float64] | None:
    from scipy.spatial.transform import Rotation

    b, c, d = quaternion
    if not np.isfinite([b, c, d]).all() or b * b + c * c + d * d > 1.01:
        return None
    a = np.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    matrix: NDArray[np.float64] = Rotation.from_quat([b, c, d, a]).as_matrix()
    return matrix


def _contradictions(
    header: Header,
    sform: NDArray[np.float64],
    qform: NDArray[np.float64] | None,
    shape: tuple[int, int, int],
    scale: float,
) -> list[Finding]:
    """What the sform says otherwise than the qform, or than the voxel steps alone where there is no qform."""
    steps = np.linalg.norm(sform[:, :3], axis=0)
    if qform is None and header.codes[0] > 0:
        said = f"the qform (code {header.codes[0]}) is no rotation; the sform (code {header.codes[1]}) is used"
        return [finding("contradictory-geometry", said)]
    if qform is None:
        stated = _steps(header)
        if not (stated > 0).all() or (np.abs(stated / steps - 1) <= _STEP).all():
            return []
        said = f"voxel steps {_triple(stated * scale)} mm by pixdim and {_triple(steps * scale)} mm by the sform, used"
        return [finding("contradictory-geometry", said)]
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in shape[::-1]], [1])).reshape(4, -1)
    apart = scale * float(np.linalg.norm((sform - qform) @ ends, axis=0).max())
    if apart <= max(_APART_MM, 0.5 * scale * float(steps.min())):
        return []
    by_s, by_q = (
        f"axes run {_letters(form)}, steps {_triple(np.linalg.norm(form[:, :3], axis=0) * scale)} mm"
        for form in (sform, qform)
    )
    said = (
        f"sform (code {header.codes[1]}): {by_s}; qform (code {header.codes[0]}): {by_q}; "
        f"corners up to {apart:.0f} mm apart; the sform is used"
    )
    return [finding("contradictory-geometry", said)]


def _triple(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)


def _letters(matrix: NDArray[np.float64]) -> str:
    """Where the axes i, j, k run to, e.g. ``LAS``, and by how much they are turned from there."""
    unit = matrix[:, :3] / np.linalg.norm(matrix[:, :3], axis=0)
    names = ""
    for column in unit.T:
        axis = int(np.abs(column).argmax())
        names += ("RAS" if column[axis] > 0 else "LPI")[axis]
    angle = float(np.degrees(np.arccos(np.clip(np.abs(unit).max(axis=0).min(), 0.0, 1.0))))
    return names if angle < 0.5 else f"{names} turned by {angle:.0f} degrees"


def _analyze_matrix(header: Header, findings: list[Finding]) -> NDArray[np.float64]:
    """Analyze 7.5 stores transverse slices from right to left, feet to head, and back to front (or flipped)."""
    if header.orient not in (0, 3):
        said = f"an Analyze file with orientation code {header.orient}; only transverse ones (0 and 3) are read"
        raise QualityError([finding("unreadable", said)])
    names, signs = ("LAS", (-1, 1, 1)) if header.orient == 0 else ("LPS", (-1, -1, 1))
    said = f"an Analyze file, which cannot tell left from right: {names} axes are assumed, as Analyze 7.5 has them"
    findings.append(finding("orientation-unknown", said))
    return np.column_stack([np.diag(_steps(header) * signs), np.zeros(3)])
