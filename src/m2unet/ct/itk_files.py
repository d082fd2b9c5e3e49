"""MHA/MHD and NRRD through SimpleITK, after a look at the header that no size or path in it can do harm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path, PureWindowsPath

import numpy as np

from m2unet.ct.findings import QualityError, finding
from m2unet.ct.itk_space import check_space, check_steps_stated, unit_mm
from m2unet.ct.raw import RawScan, geometry, volume_shape
from m2unet.ct.sniff import HEAD, is_pointer

_HEADER = 1 << 18
_SIZES = {"MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_FLOAT": 4, "MET_DOUBLE": 8}
_READERS = {"mha": "MetaImageIO", "nrrd": "NrrdImageIO"}


def read_itk(path: Path, kind: str) -> RawScan:
    """Read MetaImage or NRRD.

    Args:
        path: ``.mha``, ``.mhd``, ``.nrrd`` or ``.nhdr``.
        kind: ``mha`` or ``nrrd``, as sniffed.

    Raises:
        QualityError: it is no single volume, too large, truncated, damaged, contradicts itself, or its header
            names a file outside its folder.
    """
    import SimpleITK as sitk

    fields = _metaimage(path) if kind == "mha" else _nrrd(path)
    if kind == "mha":
        _check_metaimage(path, fields)
    else:
        _check_nrrd(path, fields)
    check_steps_stated(kind, fields)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[kind])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        shape = volume_shape(reader.GetSize())
        if reader.GetNumberOfComponents() != 1:
            raise QualityError([finding("dimensions", f"{reader.GetNumberOfComponents()} values a voxel")])
        dimension = reader.GetDimension()
        columns = np.asarray(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
        scale, named = unit_mm(kind, fields)
        spacing, direction = geometry(columns * np.asarray(reader.GetSpacing()[:3]) * scale, shape, named)
        image = reader.Execute()
    except RuntimeError as error:
        raise QualityError([finding("unreadable", _reason(error, path))]) from None
    x, y, z = (float(value) * scale for value in reader.GetOrigin()[:3])
    array = sitk.GetArrayFromImage(image).reshape(shape)
    findings = check_space(kind, fields, direction)
    return RawScan(array, spacing, (x, y, z), direction, kind, {}, tuple(findings), array.dtype.itemsize * 8)


def _reason(error: RuntimeError, path: Path) -> str:
    """The last line of ITK's message, without the path, which may name the patient."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else "no reason given"
    return re.sub(r"\S*" + re.escape(path.name), "the file", text.replace(str(path), "the file"))[:200]


def _head(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(_HEADER).decode("latin-1")


def _metaimage(path: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in _head(path).split("\n"):
        key, equals, value = line.partition("=")
        if not equals:
            break
        fields[key.strip().lower()] = value.strip()
        if key.strip().lower() == "elementdatafile":
            break
    return fields


def _check_metaimage(path: Path, fields: Mapping[str, str]) -> None:
    if "elementdatafile" not in fields or "dimsize" not in fields:
        raise QualityError([finding("unreadable", "a MetaImage header without DimSize or ElementDataFile")])
    volume_shape(_numbers(fields["dimsize"]))
    target = fields["elementdatafile"]
    data = path if target.upper() == "LOCAL" else _beside(path, target)
    there = data.stat().st_size
    if data == path:
        with path.open("rb") as stream:
            head = stream.read(_HEADER)
        there -= head.index(b"\n", head.index(b"ElementDataFile")) + 1
    packed = fields.get("compresseddata", "").lower() == "true"
    declared = _numbers(fields.get("compresseddatasize", "0")) if packed else [prod(_numbers(fields["dimsize"]))]
    size = 1 if packed else _SIZES.get(fields.get("elementtype", ""), 1)
    if declared and declared[0] * size > there:
        share = 100 * there / (declared[0] * size)
        raise QualityError([finding("truncated", f"{share:.0f} % of the voxels that the header declares are there")])


def _nrrd(path: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in _head(path).split("\n")[1:]:
        if not line.strip():
            break
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            fields[key.strip().lower()] = value.lstrip("=").strip()
    return fields


def _check_nrrd(path: Path, fields: Mapping[str, str]) -> None:
    if "sizes" not in fields:
        raise QualityError([finding("unreadable", "a NRRD header without sizes")])
    sizes = _numbers(fields["sizes"])
    if len(sizes) == 4 and any(
        word in fields.get("kinds", "") for word in ("vector", "RGB", "list", "color", "tensor")
    ):
        raise QualityError([finding("dimensions", f"{fields['sizes']}: several values a voxel or several volumes")])
    volume_shape(sizes)
    target = fields.get("data file", fields.get("datafile"))
    if target is not None:
        _beside(path, target)


def _numbers(text: str) -> list[int]:
    try:
        return [int(float(word)) for word in text.split()]
    except (ValueError, OverflowError):
        raise QualityError([finding("unreadable", "a header whose sizes are no numbers")]) from None


def _beside(path: Path, target: str) -> Path:
    """The data file of a detached header, if the header names it in its own folder; it may be a link to elsewhere."""
    windows = PureWindowsPath(target)
    leaves = windows.is_absolute() or bool(windows.drive or windows.root) or ".." in windows.parts
    if leaves or target.upper().startswith("LIST") or "%" in target or "\0" in target:
        said = "a header that names a list, a pattern, or a file outside its own folder"
        raise QualityError([finding("unsafe-reference", said)])
    data = path.parent / target
    if data.is_file():
        with data.open("rb") as stream:
            if is_pointer(stream.read(HEAD)):
                said = "the header's data file is a placeholder of git-annex or Git LFS"
                raise QualityError([finding("not-fetched", said)])
        return data
    if data.is_symlink():
        raise QualityError([finding("not-fetched", "the header's data file is a link that leads nowhere")])
    raise QualityError([finding("truncated", "the header's data file is not beside it")])
