"""NIfTI-1 and NIfTI-2, one file or a pair, plain or gzipped; and Analyze 7.5, always a pair.

Read here rather than by ITK because ITK refuses affines that are not quite at right angles (the usual rounding, and
every tilted gantry) and fills a truncated file with zeros in silence.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.findings import Finding, QualityError, finding
from m2unet.ct.nifti_header import orientation, parse, rescale
from m2unet.ct.raw import RawScan, volume_shape

_CHUNK = 1 << 20


def read_nifti(path: Path) -> RawScan:
    """Read a NIfTI file.

    Args:
        path: ``.nii``, ``.nii.gz``, or either of a ``.hdr``/``.img`` pair.

    Raises:
        QualityError: it is no single volume, too large, truncated or damaged, or its header contradicts itself.
    """
    header_path, data_path = _files(path)
    with _opened(header_path) as stream:
        header = parse(_read(stream, 544, exact=False))
    if header.layout == "single":
        data_path = header_path
    elif data_path == header_path:
        raise QualityError([finding("unreadable", f"{_PAIRS[header.layout]}, and it is given without its .img")])
    shape = volume_shape(header.sizes)
    findings: list[Finding] = []
    spacing, origin, direction = orientation(header, shape, findings)
    scale = rescale(header)
    array = np.empty(shape, dtype=header.dtype)
    with _opened(data_path) as stream:
        _skip(stream, header.offset)
        _fill(stream, array)
    return RawScan(
        array=_scaled(array, scale),
        spacing_mm=spacing,
        origin_mm=origin,
        direction=direction,
        format="nifti",
        findings=tuple(findings),
        stored_bits=header.dtype.itemsize * 8,
    )


_PAIRS = {"pair": "a NIfTI header whose voxels are in another file", "analyze": "an Analyze header"}


def _files(path: Path) -> tuple[Path, Path]:
    """The header and, of a pair, the file of its voxels; the same twice for a single file or a header alone."""
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


def _scaled(array: NDArray[Any], scale: tuple[float, float] | None) -> NDArray[Any]:
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if scale is None:
        return native
    scaled = native.astype(np.float32)
    scaled *= np.float32(scale[0])
    scaled += np.float32(scale[1])
    return scaled
