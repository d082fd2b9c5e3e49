"""Voxels of DICOM slices: decoded, rescaled to HU slice by slice, padding set to air."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.dicom_header import Slice, numbers
from m2unet.ct.findings import QualityError, finding
from m2unet.ct.raw import MAX_VOXELS
from m2unet.errors import MissingExtraError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

AIR_HU = -1024

_FASTEST = "pyjpegls"  # twice as fast as GDCM on JPEG-LS; pydicom would try GDCM first


def read_voxels(slices: Sequence[Slice]) -> NDArray[Any]:
    """Decode a stack of slices of one size.

    Args:
        slices: in order.

    Returns:
        ``[slices, rows, columns]`` HU; int16, or float32 where a slope or intercept is not whole.

    Raises:
        MissingExtraError: compressed slices whose decoder is not installed.
        QualityError: too many voxels, or slices that are truncated or damaged.
    """
    rows, columns = slices[0].shape
    if rows * columns * len(slices) > MAX_VOXELS:
        said = f"{len(slices)} slices of {rows} x {columns}; at most 2^30 voxels are read"
        raise QualityError([finding("too-large", said)])
    fractions = any((s.slope or 1.0) % 1 or (s.intercept or 0.0) % 1 for s in slices)
    out = np.empty((len(slices), rows, columns), dtype=np.float32 if fractions else np.int16)
    files: dict[Path, list[int]] = {}
    for index, item in enumerate(slices):
        files.setdefault(item.path, []).append(index)

    def load(path: Path) -> list[int]:
        """Indices of the slices of a file that could not be decoded."""
        indices = files[path]
        try:
            stored = _decode(path)
        except _DamagedError:
            return indices
        for index in indices:
            item = slices[index]
            plane = stored if stored.ndim == 2 else stored[item.frame or 0] if _has(stored, item) else None
            if plane is None or plane.shape != (rows, columns):
                return indices
            out[index] = to_hu(plane, item, whole=not fractions)
        return []

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        bad = [index for indices in pool.map(load, files) for index in indices]
    if bad:
        where = ", ".join(str(index + 1) for index in sorted(bad)[:5])
        said = f"{len(bad)} of {len(slices)} slices cannot be decoded (number {where} counted from one end)"
        raise QualityError([finding("truncated", said)])
    return out


def read_plane(item: Slice) -> NDArray[np.float32] | None:
    """HU of one slice, ``[rows, columns]``; None if it cannot be decoded."""
    try:
        return read_voxels([item])[0].astype(np.float32)
    except QualityError:
        return None


def to_hu(stored: NDArray[Any], item: Slice, *, whole: bool) -> NDArray[Any]:
    """Rescale stored values to HU and set padding to -1024.

    Padding is what the header calls so where the slice's corners hold it too: headers are known to name a value that
    occurs in the body.

    Args:
        stored: ``[rows, columns]``.
        item: the slice, with slope, intercept and padding value.
        whole: whether slope and intercept are whole numbers, so that integers suffice.
    """
    slope, intercept = item.slope or 1.0, item.intercept or 0.0
    kind = np.int32 if whole else np.float32
    hu = stored.astype(kind) * kind(slope) + kind(intercept)
    padding = _padding(stored, item.header)
    if padding is not None:
        hu[padding] = AIR_HU
    return np.clip(hu, -32768, 32767)


def _padding(stored: NDArray[Any], header: Dataset) -> NDArray[np.bool_] | None:
    value = numbers(header.get("PixelPaddingValue"), 1)
    if value is None:
        return None
    limit = numbers(header.get("PixelPaddingRangeLimit"), 1)
    # the header's value may be read unsigned though the voxels are signed, or the other way round
    ends = sorted(int(v[0]) for v in (value, value if limit is None else limit))
    masks = [(stored >= low) & (stored <= high) for low, high in (ends, _wrapped(ends))]
    mask = masks[0] | masks[1]
    corners = mask[[0, 0, -1, -1], [0, -1, 0, -1]]
    return mask if corners.all() else None


def _wrapped(ends: list[int]) -> list[int]:
    return sorted(v - 65536 if v > 32767 else v + 65536 if v < 0 else v for v in ends)


class _DamagedError(Exception):
    """The voxels of a file cannot be decoded."""


def _has(stored: NDArray[Any], item: Slice) -> bool:
    return stored.ndim == 3 and (item.frame or 0) < len(stored)


def _decode(path: Path) -> NDArray[Any]:
    from pydicom import dcmread
    from pydicom.pixels import get_decoder

    try:
        data = dcmread(path, force=True)
        syntax = data.file_meta.TransferSyntaxUID = _syntax(data)
        if syntax.is_encapsulated:
            decoder = get_decoder(syntax)
            if decoder.is_available and _FASTEST in decoder.available_plugins:
                data.pixel_array_options(decoding_plugin=_FASTEST)
        return np.asarray(data.pixel_array)
    except Exception as error:  # a damaged file can make any decoder fail in any way
        raise _DamagedError from error


def _syntax(data: Dataset) -> UID:
    """Transfer syntax; a file without meta information is implicit little endian (PS3.10)."""
    from pydicom.uid import UID, ImplicitVRLittleEndian

    return UID(str(data.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian))


def require_decoders(slices: Sequence[Slice]) -> None:
    """Check that every transfer syntax can be decoded.

    Raises:
        MissingExtraError: naming the syntax and the pip extra.
        QualityError: if a transfer syntax is none of still images.
    """
    from pydicom.pixels import get_decoder

    for syntax in {_syntax(s.header) for s in slices}:
        if not syntax.is_encapsulated:
            continue
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            raise QualityError([finding("unreadable", f"transfer syntax {syntax.name}")]) from None
        if not decoder.is_available:
            raise MissingExtraError(
                "The DICOM slices are compressed and their decoder is not installed",
                found=syntax.name,
                mend="pip install m2unet[dicom]",
            )
