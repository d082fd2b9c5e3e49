"""DICOM Segmentation objects (PS3.3 A.51): binary, fractional and label map, laid onto the scan frame by frame.

Segments are told apart by their coded property type, or by their label where that says nothing. Frames lie where their
positions say; a slice without a frame is empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.cohort.mask_files.grid import GRID_TOLERANCE
from m2unet.cohort.mask_files.merge import Merged
from m2unet.cohort.mask_files.segments import LabelFile, Segment, codes_of_segments
from m2unet.ct.findings import Finding, finding
from m2unet.ct.sniff import sniff
from m2unet.ct.volume import Volume
from m2unet.errors import ScanError

SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage."""

_SLICE_TOLERANCE = 0.3  # of the slice spacing: scans with slightly uneven slices lie on an even grid
_MOST_FRAMES, _MOST_PIXELS = 200_000, 1 << 26


def segmentation_file(path: Path) -> Path | None:
    """The DICOM segmentation that a path holds: the file itself, or the only one of a folder; None if there is none.

    Raises:
        ScanError: a folder with several.
    """
    if path.is_file():
        return path if _is_segmentation(path) else None
    found = [file for file in sorted(path.rglob("*")) if file.is_file() and _is_segmentation(file)]
    if len(found) > 1:
        raise ScanError(
            f"The folder {path.name} holds several DICOM segmentations", found=f"{len(found)}", mend="name one file"
        )
    return found[0] if found else None


def _is_segmentation(path: Path) -> bool:
    import pydicom

    try:
        if sniff(path)[0] != "dicom":
            return False
        header = pydicom.dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True)
    except Exception:  # a damaged file: what reads scans says what is wrong with it
        return False
    return str(header.get("SOPClassUID", "")) in SEG_CLASSES


def read_dicom_segments(path: Path, volume: Volume, *, strict: bool = False) -> LabelFile:
    """Read the lobes of a DICOM segmentation onto its scan's grid.

    Args:
        path: a file of Segmentation or Label Map Segmentation Storage.
        volume: the scan; if it is DICOM, too, both must share a frame of reference.
        strict: refuse segments that are neither a lobe nor the airway.

    Raises:
        ScanError: it cannot be read, belongs to another scan, its frames do not lie on the scan's slices, or no
            segment is a lobe.
    """
    import pydicom

    try:
        dataset = pydicom.dcmread(path)
        segments = {int(item.SegmentNumber): _segment(item) for item in dataset.SegmentSequence}
    except Exception as error:
        raise _unreadable(path, f"{type(error).__name__}") from None
    segments.pop(0, None)  # a label map may describe its background
    _check_scan(dataset, volume, path.name)
    codes = codes_of_segments(segments, path.name, strict=strict)
    if codes is None:
        raise ScanError(
            f"The segments of {path.name} are not named",
            found=", ".join(segment.name for segment in segments.values()),
            expected="segments coded or labelled as lobes",
        )
    wanted = {number: code for number, code in codes.items() if code}
    merged = Merged(volume.shape, path.name)
    try:
        _add_frames(dataset, wanted, merged, volume)
    except ScanError:
        raise
    except Exception as error:  # pydicom raises whatever damaged files provoke
        raise _unreadable(path, f"{type(error).__name__}: {error}"[:200]) from None
    return merged.file({code: segments[number].name for number, code in wanted.items()}, _findings(dataset))


def _unreadable(path: Path, found: str) -> ScanError:
    return ScanError(f"The DICOM segmentation {path.name} cannot be read", found=found, mend="export or copy it again")


def _segment(item: Any) -> Segment:
    kind = item.get("SegmentedPropertyTypeCodeSequence") or []
    if not kind:
        return Segment(str(item.get("SegmentLabel", "")))
    side = kind[0].get("SegmentedPropertyTypeModifierCodeSequence") or item.get(
        "SegmentedPropertyTypeModifierCodeSequence"
    )
    value = str(kind[0].get("CodeValue", ""))
    concept = (str(kind[0].get("CodingSchemeDesignator", "")), value, str(side[0].CodeValue) if side else "")
    return Segment(str(item.get("SegmentLabel", "")), concept)


def _check_scan(dataset: Any, volume: Volume, name: str) -> None:
    theirs = str(dataset.get("FrameOfReferenceUID") or "")
    ours = str(volume.source.header.get("frame_of_reference_uid") or "")
    if theirs and ours and theirs != ours:
        raise ScanError(
            f"The DICOM segmentation {name} belongs to another scan",
            found="another frame of reference than the scan's",
            mend="give the segmentation of this series",
        )


def _findings(dataset: Any) -> tuple[Finding, ...]:
    if str(dataset.get("SegmentationType", "")) != "FRACTIONAL":
        return ()
    kind = str(dataset.get("SegmentationFractionalType", "fractions")).lower()
    return (finding("mask-thresholded", f"a DICOM segmentation of {kind}; a voxel belongs to a lobe from one half on"),)


# --- frames ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """One frame: its number, the segment it shows (None in a label map), and how it lies."""

    index: int
    segment: int | None
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]


def _add_frames(dataset: Any, wanted: dict[int, int], merged: Merged, volume: Volume) -> None:
    from pydicom.pixels import iter_pixels

    count = int(dataset.get("NumberOfFrames", 1))
    if not 0 < count <= _MOST_FRAMES or int(dataset.Rows) * int(dataset.Columns) > _MOST_PIXELS:
        found = f"{count} frames of {dataset.Columns} x {dataset.Rows}"
        raise ScanError(f"The lobe mask {merged.file_name} cannot be read", found=found)
    frames = [frame for frame in _frames(dataset, count) if frame.segment is None or frame.segment in wanted]
    if not frames:
        return
    half = int(dataset.get("MaximumFractionalValue", 1)) / 2 if dataset.get("SegmentationType") == "FRACTIONAL" else 0.5
    lay = _Lay(volume, merged.file_name)
    for frame, pixels in zip(frames, iter_pixels(dataset, indices=[f.index for f in frames], raw=True), strict=True):
        where, plane = lay(frame, pixels.reshape(int(dataset.Rows), int(dataset.Columns)))
        if frame.segment is not None:
            merged.add(plane >= half, wanted[frame.segment], where)
            continue
        for number, code in wanted.items():
            merged.add(plane == number, code, where)


def _frames(dataset: Any, count: int) -> Iterator[_Frame]:
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    label_map = str(dataset.get("SegmentationType", "")) == "LABELMAP" or str(dataset.SOPClassUID) == SEG_CLASSES[1]
    for index in range(count):
        own = dataset.PerFrameFunctionalGroupsSequence[index]
        measures = _group("PixelMeasuresSequence", own, shared)
        segment = None if label_map else _group("SegmentIdentificationSequence", own, shared).ReferencedSegmentNumber
        yield _Frame(
            index,
            None if segment is None else int(segment),
            tuple(float(v) for v in _group("PlanePositionSequence", own, shared).ImagePositionPatient),
            tuple(float(v) for v in _group("PlaneOrientationSequence", own, shared).ImageOrientationPatient),
            (float(measures.PixelSpacing[0]), float(measures.PixelSpacing[1])),
        )


def _group(name: str, own: Any, shared: Any) -> Any:
    for holder in (own, shared):
        if holder is not None and holder.get(name):
            return holder[name][0]
    raise ValueError(f"no {name}")


class _Lay:
    """Finds the part of a scan's grid that a frame covers, and turns the frame to the grid's axes."""

    def __init__(self, volume: Volume, name: str) -> None:
        self.volume = volume
        self.name = name
        self.to_index = np.linalg.inv(volume.affine)

    def __call__(self, frame: _Frame, pixels: NDArray[Any]) -> tuple[tuple[slice | int, ...], NDArray[Any]]:
        """Where the frame lies, an index into ``[z, y, x]``, and its pixels there.

        Raises:
            ScanError: its pixels are not the scan's, it lies between slices, or it marks voxels beyond the scan.
        """
        along_column = self.to_index[:3, :3] @ np.multiply(frame.orientation[:3], frame.spacing[1])
        along_row = self.to_index[:3, :3] @ np.multiply(frame.orientation[3:], frame.spacing[0])
        start = (self.to_index @ np.append(frame.position, 1.0))[:3]
        column, row = int(np.abs(along_column).argmax()), int(np.abs(along_row).argmax())  # axes of (x, y, z)
        if column == row:
            raise self._off_grid("its axes are not the scan's")
        normal = 3 - column - row
        far = start + along_column * (pixels.shape[1] - 1) + along_row * (pixels.shape[0] - 1)
        ideal_start, ideal_far = np.rint(start), np.rint(start)
        ideal_far[column] += np.sign(along_column[column]) * (pixels.shape[1] - 1)
        ideal_far[row] += np.sign(along_row[row]) * (pixels.shape[0] - 1)
        off = np.maximum(np.abs(start - ideal_start), np.abs(far - ideal_far))
        if max(off[column], off[row]) > GRID_TOLERANCE or off[normal] > _SLICE_TOLERANCE:
            raise self._off_grid(f"a frame lies {off.max():.2g} voxels beside the scan's voxels")
        if along_column[column] < 0:
            pixels = pixels[:, ::-1]
        if along_row[row] < 0:
            pixels = pixels[::-1]
        plane = pixels if row > column else pixels.T  # of array axes z, y, x: the slower one first
        low = np.minimum(ideal_start, ideal_far).astype(int)
        return self._clipped(plane, low, normal)

    def _clipped(
        self, plane: NDArray[Any], low: NDArray[np.int_], normal: int
    ) -> tuple[tuple[slice | int, ...], NDArray[Any]]:
        first, last = sorted({0, 1, 2} - {normal}, reverse=True)  # (x, y, z) axes of the plane's rows and columns
        sizes = self.volume.shape[::-1]
        part: list[slice] = []
        where: list[slice | int] = [0, 0, 0]
        for axis, length in zip((first, last), plane.shape, strict=True):
            begin, end = max(0, -int(low[axis])), min(length, sizes[axis] - int(low[axis]))
            part.append(slice(begin, max(begin, end)))
            where[2 - axis] = slice(int(low[axis]) + begin, int(low[axis]) + max(begin, end))
        inside = plane[part[0], part[1]]
        at = int(low[normal])
        if not 0 <= at < sizes[normal]:
            inside, at = inside[:0, :0], 0
            where = [slice(0, 0) if isinstance(one, slice) else one for one in where]
        if np.count_nonzero(inside) < np.count_nonzero(plane):
            raise self._off_grid("it marks voxels beyond the scan")
        where[2 - normal] = at
        return tuple(where), inside

    def _off_grid(self, found: str) -> ScanError:
        return ScanError(
            f"The lobe mask {self.name} does not lie on its image's grid",
            found=found,
            mend="pair it with the scan it was made from",
        )
