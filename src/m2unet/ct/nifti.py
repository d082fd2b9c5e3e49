"""NIfTI-1 and NIfTI-2, one file or a pair, plain or gzipped.

Read here rather than by ITK because ITK refuses affines that are not quite at right angles (the usual rounding, and
every tilted gantry) and fills a truncated file with zeros in silence. Layout and the three ways of giving an
orientation: the NIfTI-1 and NIfTI-2 header files, https://nifti.nimh.nih.gov.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.findings import Finding, QualityError, finding
from m2unet.ct.raw import RawScan, geometry, volume_shape

_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Header:
    order: str
    pair: bool
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


def read_nifti(path: Path) -> RawScan:
    """Read a NIfTI file.

    Args:
        path: ``.nii``, ``.nii.gz``, or either of a ``.hdr``/``.img`` pair.

    Raises:
        QualityError: it is no single volume, too large, truncated or damaged.
    """
    header_path, data_path = _files(path)
    with _opened(header_path) as stream:
        header = _parse(_read(stream, 544, exact=False))
    shape = volume_shape(header.sizes)
    if header.datatype not in _DTYPES:
        raise QualityError([finding("dimensions", f"voxels of NIfTI type {header.datatype}, not single real numbers")])
    dtype = np.dtype(header.order + _DTYPES[header.datatype])
    array = np.empty(shape, dtype=dtype)
    with _opened(data_path) as stream:
        _skip(stream, header.offset)
        _fill(stream, array)
    findings: list[Finding] = []
    spacing, origin, direction = _orientation(header, findings)
    return RawScan(
        array=_scaled(array, header),
        spacing_mm=spacing,
        origin_mm=origin,
        direction=direction,
        format="nifti",
        findings=tuple(findings),
        stored_bits=dtype.itemsize * 8,
    )


def _files(path: Path) -> tuple[Path, Path]:
    name = path.name.lower()
    for ending, other in ((".hdr", ".img"), (".img", ".hdr"), (".hdr.gz", ".img.gz"), (".img.gz", ".hdr.gz")):
        if name.endswith(ending):
            partner = path.with_name(path.name[: -len(ending)] + other)
            header, data = (path, partner) if ending.startswith(".hdr") else (partner, path)
            if header.is_file() and data.is_file():
                return header, data
            raise QualityError([finding("unreadable", f"one of a pair of files; its {other} is not beside it")])
    return path, path


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]


def _read(stream: IO[bytes], count: int, *, exact: bool = True) -> bytes:
    try:
        data = stream.read(count)
    except (EOFError, OSError, zlib.error):
        data = b""
    if exact and len(data) < count:
        raise QualityError([finding("truncated", "the file ends inside its header")])
    return data


def _skip(stream: IO[bytes], count: int) -> None:
    while count > 0:
        count -= len(_read(stream, min(count, _CHUNK)))


def _fill(stream: IO[bytes], array: NDArray[Any]) -> None:
    """Read the voxels, chunk by chunk and never more than declared, whatever a compressed file would unpack to."""
    view = array.reshape(-1).view(np.uint8).data
    done = 0
    try:
        while done < len(view) and (data := stream.read(min(_CHUNK, len(view) - done))):
            view[done : done + len(data)] = data
            done += len(data)
        stream.read(4 * _CHUNK)  # a compressed file checks its sum only at its end; a bomb is followed no further
    except (EOFError, OSError, zlib.error):
        raise QualityError([finding("truncated", "the compressed file is cut short or damaged")]) from None
    if done < len(view):
        found = f"the file ends after {100 * done / len(view):.0f} % of its voxels"
        raise QualityError([finding("truncated", found)])


def _parse(data: bytes) -> _Header:
    for order in "<>":
        size = struct.unpack(order + "i", data[:4])[0] if len(data) >= 348 else 0
        if size == 348:
            return _parse1(data, order)
        if size == 540 and len(data) >= 540:
            return _parse2(data, order)
    raise QualityError([finding("truncated", "the file ends inside its header, or the header is damaged")])


def _parse1(data: bytes, order: str) -> _Header:
    def take(form: str, at: int) -> tuple[Any, ...]:
        return struct.unpack_from(order + form, data, at)

    dims = take("8h", 40)
    vox_offset, slope, intercept = take("3f", 108)
    pair = data[344:347] == b"ni1"
    return _Header(
        order, pair, _sizes(dims), take("h", 70)[0], take("8f", 76), _offset(vox_offset), slope, intercept,
        data[123], take("2h", 252), take("6f", 256), take("12f", 280),
    )  # fmt: skip


def _parse2(data: bytes, order: str) -> _Header:
    def take(form: str, at: int) -> tuple[Any, ...]:
        return struct.unpack_from(order + form, data, at)

    slope, intercept = take("2d", 176)
    pair = data[4:7] == b"ni2"
    return _Header(
        order, pair, _sizes(take("8q", 16)), take("h", 12)[0], take("8d", 104), _offset(take("q", 168)[0]), slope,
        intercept, take("i", 500)[0], take("2i", 344), take("6d", 352), take("12d", 400),
    )  # fmt: skip


def _sizes(dims: tuple[int, ...]) -> tuple[int, ...]:
    if not 1 <= dims[0] <= 7:
        raise QualityError([finding("unreadable", f"a NIfTI header with {dims[0]} axes")])
    return tuple(dims[1 : dims[0] + 1])


def _offset(value: float) -> int:
    if not 0 <= value <= 1 << 30:
        raise QualityError([finding("unreadable", "a NIfTI header whose voxels begin nowhere in the file")])
    return int(value)


def _scaled(array: NDArray[Any], header: _Header) -> NDArray[Any]:
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    slope, intercept = header.slope, header.intercept
    if not np.isfinite(slope) or not np.isfinite(intercept) or slope == 0 or (slope == 1 and intercept == 0):
        return native
    scaled = native.astype(np.float32)
    scaled *= np.float32(slope)
    scaled += np.float32(intercept)
    return scaled


def _orientation(
    header: _Header, findings: list[Finding]
) -> tuple[tuple[float, float, float], tuple[float, float, float], NDArray[np.float64]]:
    """The affine (sform) first, the quaternion (qform) second, as ITK and nibabel do; neither: axes assumed."""
    qform, sform = header.codes
    steps = np.abs(np.asarray(header.pixdim[1:4], dtype=np.float64))
    rows = np.asarray(header.rows, dtype=np.float64).reshape(3, 4)
    if sform > 0 and np.isfinite(rows).all() and abs(np.linalg.det(rows[:, :3])) > 0:
        matrix, origin = rows[:, :3], rows[:, 3]
    elif qform > 0:
        flip = -1.0 if header.pixdim[0] < 0 else 1.0
        matrix = _rotation(header.quaternion[:3]) * (steps * np.array([1.0, 1.0, flip]))
        origin = np.asarray(header.quaternion[3:], dtype=np.float64)
    else:
        findings.append(finding("orientation-unknown", "a NIfTI header with neither qform nor sform"))
        matrix, origin = np.diag(steps * [-1, -1, 1]), np.zeros(3)
    unit = _UNITS_MM.get(header.units & 7, 1.0)
    to_lps = np.array([-1.0, -1.0, 1.0])[:, None] * unit
    spacing, direction = geometry(matrix * to_lps)
    x, y, z = (float(value) for value in origin * to_lps[:, 0])
    return spacing, (x, y, z), direction


def _rotation(quaternion: tuple[float, ...]) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    b, c, d = quaternion
    a = np.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    if not np.isfinite([b, c, d]).all() or a + abs(b) + abs(c) + abs(d) == 0:
        raise QualityError([finding("bad-spacing", "a NIfTI qform that is no rotation")])
    return Rotation.from_quat([b, c, d, a]).as_matrix()
