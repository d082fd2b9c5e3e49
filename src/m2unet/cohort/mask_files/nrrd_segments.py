"""3D Slicer's ``.seg.nrrd``: a label map, or several in layers, whose header names each segment.

Layout: 3D Slicer's developer guide, *Segmentations*, "Segmentation labelmap file format". Slicer crops the voxels to
the segments; several layers are the first axis of a four-dimensional array.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2unet.cohort.mask_files.grid import placed
from m2unet.cohort.mask_files.merge import OVERLAP_MEND, Merged
from m2unet.cohort.mask_files.names import is_generic
from m2unet.cohort.mask_files.segments import LabelFile, Segment, codes_of_segments
from m2unet.cohort.mask_files.values import whole_numbers
from m2unet.ct.findings import QualityError
from m2unet.ct.raw import geometry, volume_shape
from m2unet.ct.read import read_raw
from m2unet.ct.volume import Volume, from_source
from m2unet.errors import ScanError

_KEY = re.compile(r"Segment(\d+)_(ID|Name|LabelValue|Layer|Tags)")
_CONCEPT = re.compile(r"\s*([^^~]*)\^([^^~]*)\^")
_MOST_LAYERS = 64


def read_segments(path: Path) -> dict[int, dict[str, str]]:
    """The header's segments by their number there: ID, Name, LabelValue, Layer and Tags; empty for a plain label map.

    Raises:
        ScanError: the header cannot be read.
    """
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise ScanError(f"{path.name} cannot be read", mend="save it again") from None
    found: dict[int, dict[str, str]] = defaultdict(dict)
    for key in reader.GetMetaDataKeys():
        match = _KEY.fullmatch(key)
        if match:
            found[int(match[1])][match[2]] = reader.GetMetaData(key).strip()
    return dict(sorted(found.items()))


def read_segment_codes(path: Path, *, strict: bool = True) -> dict[int, int] | None:
    """Which of our codes each value of a ``.seg.nrrd`` with one layer means, by the segments' names or SNOMED CT codes.

    Args:
        path: of the file, as 3D Slicer saved it.
        strict: refuse segments that are neither a lobe nor the airway.

    Returns:
        Our code by value; None where the file has no segments (a plain label map), or none with a name of its own.

    Raises:
        ScanError: the file cannot be read, it has several layers, or its names do not say which segments are lobes.
    """
    keyed = _keyed(path)
    if any(layer for layer, _ in keyed):
        raise ScanError(f"The segments of {path.name} overlap", mend=OVERLAP_MEND)
    return codes_of_segments({label: s for (_, label), s in keyed.items()}, path.name, strict=strict) if keyed else None


def read_nrrd_segments(path: Path, volume: Volume, *, strict: bool = False) -> LabelFile | None:
    """Read a NRRD whose header names segments.

    Args:
        path: of the file.
        volume: the scan it was drawn on; the file may cover a part of its grid.
        strict: refuse segments that are neither a lobe nor the airway.

    Returns:
        None where the header names no segment.

    Raises:
        ScanError: it cannot be read, lies on another grid, or its segments do not say which are lobes.
    """
    keyed = _keyed(path)
    if not keyed:
        return None
    if not any(layer for layer, _ in keyed):
        names = {label: segment.name for (_, label), segment in keyed.items()}
        return LabelFile(_single(path, volume), read_segment_codes(path, strict=strict), names)
    numbered = dict(enumerate(keyed.values(), 1))
    meaning = codes_of_segments(numbered, path.name, strict=strict)
    if meaning is None:
        raise ScanError(
            f"The segments of {path.name} are not named",
            found=", ".join(segment.name for segment in keyed.values()),
            mend="name them RUL, RML, RLL, LUL and LLL in 3D Slicer",
        )
    layers = _layers(path, volume)
    if max(layer for layer, _ in keyed) >= len(layers):
        raise ScanError(f"The segments of {path.name} overlap", found="layers without voxels", mend=OVERLAP_MEND)
    merged = Merged(volume.shape, path.name)
    for number, (layer, value) in enumerate(keyed, 1):
        if meaning[number]:
            merged.add(layers[layer] == value, meaning[number])
    return merged.file({meaning[number]: segment.name for number, segment in numbered.items() if meaning[number]})


def _keyed(path: Path) -> dict[tuple[int, int], Segment]:
    """The header's segments by layer and label."""
    found: dict[tuple[int, int], Segment] = {}
    for entry in read_segments(path).values():
        label, layer = entry.get("LabelValue", "1"), entry.get("Layer", "0")
        if not label.isdigit() or not layer.isdigit() or (int(layer), int(label)) in found:
            raise ScanError(f"The header of {path.name} is damaged", found=f"segment {entry.get('Name', '?')!r}")
        found[int(layer), int(label)] = _segment(entry)
    return found


def _segment(entry: dict[str, str]) -> Segment:
    name = entry.get("Name", "")
    if is_generic(name) and not is_generic(entry.get("ID", "")):
        name = entry["ID"]
    tag = re.search(r"TerminologyEntry:([^|]*)", entry.get("Tags", ""))
    parts = [_CONCEPT.match(part) for part in (tag[1] if tag else "").split("~")]  # context, category, type, modifier
    kind, side = (parts[n] if len(parts) > n else None for n in (2, 3))
    return Segment(name, (kind[1], kind[2], side[2] if side else "") if kind else ("", "", ""))


def _layers(path: Path, volume: Volume) -> list[NDArray[np.int16]]:
    """Its label maps on the whole grid, one of each layer."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    count = reader.GetNumberOfComponents()
    if count == 1:
        return [_single(path, volume)]
    with path.open("rb") as stream:
        detached = re.search(rb"^data ?file:", stream.read(1 << 18).split(b"\n\n", 1)[0], re.MULTILINE | re.IGNORECASE)
    try:
        volume_shape(reader.GetSize())
        if detached or count > _MOST_LAYERS:
            raise ScanError(f"The lobe mask {path.name} cannot be read", found=f"{count} layers", mend="save it again")
        image = reader.Execute()
    except QualityError as error:
        raise ScanError(f"The lobe mask {path.name} cannot be read", found=error.found, mend=error.mend) from None
    except RuntimeError:
        raise ScanError(f"The lobe mask {path.name} cannot be read", mend="save it again") from None
    columns = np.asarray(image.GetDirection()).reshape(3, 3) * np.asarray(image.GetSpacing())
    spacing, direction = geometry(columns)
    array = sitk.GetArrayViewFromImage(image)
    return [
        placed(
            from_source(whole_numbers(array[..., layer], path.name), spacing, image.GetOrigin(), direction),
            volume,
            path.name,
        )
        for layer in range(count)
    ]


def _single(path: Path, volume: Volume) -> NDArray[np.int16]:
    try:
        raw = read_raw(path)
    except QualityError as error:
        raise ScanError(f"The lobe mask {path.name} cannot be read", found=error.found, mend=error.mend) from None
    mask = from_source(whole_numbers(raw.array, path.name), raw.spacing_mm, raw.origin_mm, raw.direction)
    return placed(mask, volume, path.name)
