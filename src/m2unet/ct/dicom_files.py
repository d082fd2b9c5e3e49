"""Find the DICOM slices in a folder tree and read their headers, without voxels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.findings import Finding, QualityError, finding
from m2unet.ct.sniff import sniff

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_FILES = 20_000
"""More files than this are no single scan: most likely the root of an archive was given."""

XRAY_MODALITIES = frozenset({"CR", "DX", "MG", "RF", "XA", "PX", "IO", "RG"})

_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"),
    *("PatientName", "PatientPosition", "Modality", "ImageType", "Manufacturer", "ManufacturerModelName", "KVP"),
    *("ConvolutionKernel", "SeriesNumber", "InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "GantryDetectorTilt"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "RescaleType", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "LossyImageCompression", "StudyDate", "StudyTime", "SeriesDate", "SeriesTime"),
    *("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]


@dataclass(frozen=True)
class Slice:
    """One slice: a file, or a frame of one.

    Attributes:
        path: its file.
        frame: number within a multi-frame file, from 0; None for a file of one slice.
        header: the file's header without voxels.
        position: LPS ``(x, y, z)`` of its first voxel's centre, mm; None if the header lacks it.
        orientation: ``(2, 3)`` unit vectors along a row and along a column; None likewise.
        spacing_mm: between rows and between columns; None likewise.
        slope, intercept: from stored values to HU; None where the header has none.
    """

    path: Path
    frame: int | None
    header: Dataset
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    spacing_mm: tuple[float, float] | None
    slope: float | None
    intercept: float | None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.header.get("Rows") or 0), int(self.header.get("Columns") or 0)

    @property
    def instance(self) -> int | None:
        """Instance number; within a multi-frame file the frame's number."""
        return self.frame + 1 if self.frame is not None else whole(self.header.get("InstanceNumber"))

    @property
    def series(self) -> str:
        """Series instance UID, empty if missing."""
        return str(self.header.get("SeriesInstanceUID") or "")


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    Attributes:
        slices: of every DICOM file with voxels, in the order of their paths.
        files: all files that were looked at.
        others: kinds of the files that are not DICOM, in words, with their numbers.
        damaged: DICOM files whose header cannot be read.
    """

    slices: tuple[Slice, ...]
    files: int
    others: Counter[str]
    damaged: int


def read_contents(path: Path) -> Contents:
    """Read the headers of every file under a folder, or of one file.

    Raises:
        QualityError: more files than a scan has.
    """
    slices: list[Slice] = []
    others: Counter[str] = Counter()
    damaged = number = 0
    for number, file in enumerate(_files(path), 1):
        if number > MAX_FILES:
            raise QualityError([finding("too-many-files", f"more than {MAX_FILES} files")])
        kind, name = sniff(file)
        if kind != "dicom":
            others[f"{kind}: {name}"] += 1
            continue
        header = _header(file)
        if header is None:
            damaged += 1
        elif header.get("Rows") and header.get("Columns"):
            slices.extend(_slices(file, header))
        else:
            others["other: DICOM without voxels"] += 1
    return Contents(tuple(slices), number, others, damaged)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            if not name.startswith(".") and name.upper() != "DICOMDIR" and file.is_file():
                yield file


def _header(file: Path) -> Dataset | None:
    from pydicom import dcmread

    try:
        header = dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
        header.get("Rows")
    except Exception:  # a damaged file can make the parser fail in any way
        return None
    return header


def _slices(file: Path, header: Dataset) -> Iterator[Slice]:
    frames = whole(header.get("NumberOfFrames")) or 1
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups is None and frames == 1:
        yield _slice(file, None, header, [header])
        return
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    for frame in range(frames):
        own = [groups[frame]] if groups is not None and frame < len(groups) else []
        parts = [part for group in (*own, *shared) for part in _macros(group)]
        yield _slice(file, frame, header, [*parts, header])


def _macros(group: Dataset) -> Iterator[Dataset]:
    for name in (
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
    ):
        yield from group.get(name) or []


def _slice(file: Path, frame: int | None, header: Dataset, parts: list[Dataset]) -> Slice:
    """One slice from its header parts, the most specific first."""

    def first(name: str, count: int) -> NDArray[np.float64] | None:
        values = next((part.get(name) for part in parts if part.get(name) is not None), None)
        return numbers(values, count)

    position, cosines, spacing = (
        first("ImagePositionPatient", 3),
        first("ImageOrientationPatient", 6),
        first("PixelSpacing", 2),
    )
    slope, intercept = first("RescaleSlope", 1), first("RescaleIntercept", 1)
    return Slice(
        path=file,
        frame=frame,
        header=header,
        position=position,
        orientation=None if cosines is None else _unit(cosines.reshape(2, 3)),
        spacing_mm=None if spacing is None else (float(spacing[0]), float(spacing[1])),
        slope=None if slope is None or slope[0] == 0 else float(slope[0]),
        intercept=None if intercept is None else float(intercept[0]),
    )


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64] | None:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (np.abs(lengths - 1) > 0.1).any() or abs(vectors[0] @ vectors[1]) > 0.1:
        return None
    return vectors / lengths


def numbers(values: Any, count: int) -> NDArray[np.float64] | None:
    """So many finite numbers from a header element, None if it is not that."""
    try:
        array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return array if array.shape == (count,) and np.isfinite(array).all() else None


def whole(value: Any) -> int | None:
    """A whole number from a header element, None if it is none."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def nothing_found(contents: Contents) -> Finding:
    """Say why a folder without DICOM slices holds no scan."""
    counts: Counter[str] = Counter()
    for said, count in contents.others.items():
        counts[said.partition(": ")[0]] += count
    if contents.damaged:
        return finding("unreadable", f"{contents.damaged} DICOM file(s) whose header is damaged")
    if counts["picture"]:
        return finding("picture", f"{counts['picture']} picture(s) ({_said(contents.others, 'picture')})")
    volumes = counts["nifti"] + counts["mha"] + counts["nrrd"]
    if volumes:
        return finding("empty-folder", f"no DICOM series, but {volumes} volume file(s): give one of them by its name")
    if counts["other"]:
        return finding("empty-folder", f"no scan among {contents.files} file(s) ({_said(contents.others, 'other')})")
    return finding("empty-folder", "no files")


def _said(others: Counter[str], kind: str) -> str:
    names = [name.partition(": ")[2] for name, _ in others.most_common() if name.startswith(kind)]
    return ", ".join(names[:3])
