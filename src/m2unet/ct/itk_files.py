"""MHA/MHD and NRRD through SimpleITK, after a look at the header that no size or path in it can do harm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

from m2unet.ct.findings import Finding, QualityError, finding
from m2unet.ct.raw import RawScan, geometry, volume_shape

_HEADER = 1 << 18
_SIZES = {"MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_FLOAT": 4, "MET_DOUBLE": 8}
_READERS = {"mha": "MetaImageIO", "nrrd": "NrrdImageIO"}


def read_itk(path: Path, kind: str) -> RawScan:
    """Read MetaImage or NRRD.

    Args:
        path: ``.mha``, ``.mhd``, ``.nrrd`` or ``.nhdr``.
        kind: ``mha`` or ``nrrd``, as sniffed.

    Raises:
        QualityError: it is no single volume, too large, truncated, damaged, or names a file outside its folder.
    """
    import SimpleITK as sitk

    fields = _metaimage(path) if kind == "mha" else _nrrd(path)
    if kind == "mha":
        _check_metaimage(path, fields)
    else:
        _check_nrrd(path, fields)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[kind])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        shape = volume_shape(reader.GetSize())
        if reader.GetNumberOfComponents() != 1:
            raise QualityError([finding("dimensions", f"{reader.GetNumberOfComponents()} values a voxel")])
        image = reader.Execute()
    except RuntimeError as error:
        raise QualityError([finding("unreadable", _reason(error, path))]) from None
    dimension = image.GetDimension()
    columns = np.asarray(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    spacing, direction = geometry(columns * np.asarray(image.GetSpacing()[:3]))
    x, y, z = image.GetOrigin()[:3]
    array = sitk.GetArrayFromImage(image).reshape(shape)
    findings: list[Finding] = []
    if kind == "nrrd" and "space" not in fields:
        findings.append(finding("orientation-unknown", "a NRRD header without a space"))
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
    """The data file of a detached header, if it lies in the header's folder."""
    refused = finding("unsafe-reference", "a header that names a list, a pattern, or a file outside its own folder")
    if target.upper().startswith("LIST") or "%" in target or "\0" in target:
        raise QualityError([refused])
    folder = path.parent.resolve()
    data = (folder / target).resolve()
    if not data.is_relative_to(folder):
        raise QualityError([refused])
    if not data.is_file():
        raise QualityError([finding("truncated", "the header's data file is not beside it")])
    return data
