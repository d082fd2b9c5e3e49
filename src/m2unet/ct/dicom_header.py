"""One DICOM slice by its header: where it lies, how it is rescaled, and which element does not say so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset

GEOMETRY = ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
RESCALE = ("RescaleSlope", "RescaleIntercept")

_SHOWN = 40
"""Characters of an element's value that messages show."""

_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"),
    *("PatientName", "PatientPosition", "Modality", "ImageType", "Manufacturer", "ManufacturerModelName", "KVP"),
    *("ConvolutionKernel", "SeriesNumber", "InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "GantryDetectorTilt"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "RescaleType", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "LossyImageCompression", "StudyDate", "StudyTime", "SeriesDate", "SeriesTime"),
    *("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ModalityLUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]

_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)


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
        slope, intercept: from stored values to HU; None likewise.
        unusable: keyword of each element of these that cannot be used, with its value; empty where it is missing.
        rescale_type: what the rescaled values are, upper case; ``HU`` where the header does not say.
    """

    path: Path
    frame: int | None
    header: Dataset
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    spacing_mm: tuple[float, float] | None
    slope: float | None
    intercept: float | None
    unusable: Mapping[str, str] = field(default_factory=dict)
    rescale_type: str = "HU"

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


def read_header(file: Path) -> Dataset | None:
    """The header of a DICOM file as far as it is needed, without voxels; None if it cannot be parsed."""
    from pydicom import dcmread

    try:
        header = dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
        header.get("Rows")
    except Exception:  # a damaged file can make the parser fail in any way
        return None
    return header


def slices_of(file: Path, header: Dataset) -> Iterator[Slice]:
    """The slices of a file: one, or one for each frame."""
    frames = whole(header.get("NumberOfFrames")) or 1
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups is None and frames == 1:
        yield _slice(file, None, header, [header])
        return
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    for frame in range(frames):
        own = [groups[frame]] if groups is not None and frame < len(groups) else []
        parts = [part for group in (*own, *shared) for name in _MACROS for part in group.get(name) or []]
        yield _slice(file, frame, header, [*parts, header])


def _slice(file: Path, frame: int | None, header: Dataset, parts: list[Dataset]) -> Slice:
    """One slice from its header parts, the most specific first."""

    def value(name: str) -> Any:
        return next((part.get(name) for part in parts if part.get(name) is not None), None)

    unusable: dict[str, str] = {}

    def usable(name: str, count: int) -> NDArray[np.float64] | None:
        found = numbers(value(name), count)
        if found is None or not _possible(name, found):
            unusable[name] = _shown(value(name))
            return None
        return found

    position, spacing, cosines = (
        usable("ImagePositionPatient", 3),
        usable("PixelSpacing", 2),
        usable("ImageOrientationPatient", 6),
    )
    slope, intercept = usable("RescaleSlope", 1), usable("RescaleIntercept", 1)
    return Slice(
        path=file,
        frame=frame,
        header=header,
        position=position,
        orientation=None if cosines is None else _unit(cosines),
        spacing_mm=None if spacing is None else (float(spacing[0]), float(spacing[1])),
        slope=None if slope is None else float(slope[0]),
        intercept=None if intercept is None else float(intercept[0]),
        unusable=unusable,
        rescale_type=str(value("RescaleType") or "HU").upper(),
    )


def _possible(name: str, values: NDArray[np.float64]) -> bool:
    """Whether numbers can be what the element says: steps and slopes are positive, a frame is one."""
    if name in ("PixelSpacing", "RescaleSlope"):
        return bool((values > 0).all())
    if name == "ImageOrientationPatient":
        row, column = values.reshape(2, 3)
        lengths = np.linalg.norm([row, column], axis=1)
        return bool((np.abs(lengths - 1) <= 0.1).all() and abs(row @ column) <= 0.1)
    return True


def _unit(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    vectors = cosines.reshape(2, 3)
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _shown(value: Any) -> str:
    """An element's value for messages: printable, short, no words, for these could be a name; empty if missing."""
    parts = [] if value is None else value if isinstance(value, MutableSequence) else [value]
    text = "\\".join(part.decode("latin-1") if isinstance(part, bytes) else str(part) for part in parts)
    text = "".join(c if c.isprintable() else "?" for c in text.strip(" \0"))
    return "a text" if re.search(r"[^\W\d_]{4}", text) else text[:_SHOWN]


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


def element(keyword: str) -> str:
    """A DICOM element by keyword and tag, e.g. ``PixelSpacing (0028,0030)``."""
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword) or 0
    return f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def unusable_elements(slices: Sequence[Slice], keywords: Sequence[str], total: int | None = None) -> str:
    """Which elements cannot be used, each with its most frequent value and in how many slices; empty if none.

    Args:
        slices: those to look at.
        keywords: of the elements.
        total: number of slices they are counted among; all of ``slices`` if None.
    """
    parts = []
    for keyword in keywords:
        values = Counter(s.unusable[keyword] for s in slices if keyword in s.unusable)
        for value, count in sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))[:2]:
            fault = f'is "{value}", which cannot be used,' if value else "is missing or empty"
            parts.append(f"{element(keyword)} {fault} in {count} of {total or len(slices)} slices")
    return "; ".join(parts)
