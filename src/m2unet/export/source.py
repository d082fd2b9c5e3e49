"""The DICOM series a scan was read from, and what every object derived from it shares: identity, time, UIDs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m2unet import __version__
from m2unet.ct.volume import Volume
from m2unet.errors import M2UNetError, MissingExtraError
from m2unet.export.codes import ARTIFICIAL_INTELLIGENCE, Concept
from m2unet.export.uids import derive_uid

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

MANUFACTURER = "m2unet"
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)
_DESCRIPTIVE_GROUPS = frozenset({0x0008, 0x0010, 0x0012, 0x0032, 0x0038, 0x0040})
_STUDY_ID = 0x00200010
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_PLANE = ("FrameOfReferenceUID", "ImageOrientationPatient", "PixelSpacing")
_READ = (*_IDENTITY, *_PLANE, "Modality", "Rows", "Columns", "ImagePositionPatient", "SliceThickness")


class ExportError(M2UNetError):
    """A DICOM object cannot be made from this scan or these results."""


@dataclass(frozen=True)
class Algorithm:
    """What made a segmentation or a measurement.

    Attributes:
        name: at most 64 characters, as ``version``.
        version: of the software, with the weights where there are any.
        family: kind of algorithm (CID 7162).
        parameters: settings worth keeping, each ``name=value``.
    """

    name: str
    version: str = __version__
    family: Concept = ARTIFICIAL_INTELLIGENCE
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeriesOptions:
    """How the new series is called.

    Attributes:
        number: series number; None for one made of the source's (source 3 gives 301 for the segmentation, 302 for the
            report).
        description: series description; None for a default that says research use only.
        when: content date and time; None for the source study's, so that a rerun gives the same object.
    """

    number: int | None = None
    description: str | None = None
    when: datetime | None = None


@dataclass(frozen=True)
class SourceSeries:
    """The images a volume was read from.

    Attributes:
        images: headers without voxels, one a slice, in the order of the volume's source axis k; or one of a file with
            many frames. The first holds every attribute, cleaned (see :func:`read_source`), the others only what
            places and names them.
        pixel_spacing_mm: between rows and between columns.
        slice_thickness_mm: of the source, or the slices' distance where it does not say.
        slice_spacing_mm: distance of neighbouring planes along their normal.
        frames: of a file with many frames, the frame (from 0) at each place of axis k.
        patient_name: kept apart from the first header, because highdicom warns, quoting it, of a name it finds odd.
    """

    images: tuple[Dataset, ...]
    pixel_spacing_mm: tuple[float, float]
    slice_thickness_mm: float
    slice_spacing_mm: float
    frames: tuple[int, ...] | None = None
    patient_name: Any = ""

    @property
    def first(self) -> Dataset:
        """The header that patient and study are copied from."""
        return self.images[0]

    @property
    def uids(self) -> tuple[str, ...]:
        """SOP instance UIDs in slice order."""
        return tuple(str(image.SOPInstanceUID) for image in self.images)


def require_highdicom() -> Any:
    """The highdicom package.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise MissingExtraError(
            "Writing DICOM objects needs highdicom", found=str(error), mend="pip install m2unet[dicom]"
        ) from None
    return highdicom


def read_source(volume: Volume) -> SourceSeries:
    """Read the headers of the DICOM images that a volume was read from.

    Attributes that every object must have but may leave empty are filled with empty values where the source lacks
    them; descriptive ones whose value is malformed are emptied. A missing frame of reference gets a UID derived from
    the series'.

    Args:
        volume: from :func:`m2unet.ct.read.read_scan`, of a DICOM series or a DICOM file with many frames.

    Raises:
        ExportError: the volume was not read from DICOM, its files are gone or changed, or lack what identifies them.
    """
    header = volume.source.header
    if volume.source.format != "dicom" or not header.get("files"):
        raise ExportError(
            "DICOM objects can only be made for a scan that was read from DICOM",
            found=f"a scan read from {volume.source.format}",
            mend="give the DICOM series; for other formats write the mask in the scan's own format",
        )
    files = [Path(file) for file in header["files"]]
    frames = _frames(volume, files, header.get("frames") or ())
    if frames is not None:
        files = files[:1]
    with quiet():
        images = tuple(_read(file, whole=not number) for number, file in enumerate(files))
        _check_identity(images, header.get("sop_instance_uids") or ())
        _check_size(images, volume)
        if frames is None:
            _check_order(images, volume)
            _share(images)
        _clean(images[0])
        name, images[0].PatientName = images[0].PatientName, ""
    row, column = volume.source.spacing_mm[1:]
    between = _plane_distance(volume)
    thickness = float(header.get("slice_thickness_mm") or between)
    if frames is None:
        images[0].SliceThickness = f"{thickness:.10g}"  # highdicom asks for it even when it is told the measures
    return SourceSeries(images, (row, column), thickness, between, frames, name)


def _frames(volume: Volume, files: Sequence[Path], frames: Sequence[int | None]) -> tuple[int, ...] | None:
    """Frame at each place, None for one file a slice."""
    count = volume.source.shape[0]
    if len(files) == count and len(set(files)) == count and not any(frame for frame in frames):
        return None
    numbers = tuple(frame for frame in frames if frame is not None)
    if len(set(files)) != 1 or sorted(numbers) != list(range(count)):
        raise ExportError(
            "DICOM objects are made for one file a slice, or one file whose frames are the slices",
            found=f"{len(set(files))} file(s) for {count} slices",
            mend="leave other frames out of the series",
        )
    return numbers


def _plane_distance(volume: Volume) -> float:
    """Distance of neighbouring planes along their normal: less than the step from slice to slice with a tilt."""
    source = volume.source
    normal = np.cross(source.direction[:, 0], source.direction[:, 1])
    return float(source.spacing_mm[0] * abs(normal @ source.direction[:, 2]))


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what pydicom and highdicom warn of and log: they quote values, which may identify the patient."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [found.level for found in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found in loggers:
            found.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for found, level in zip(loggers, levels, strict=True):
                found.setLevel(level)


@contextmanager
def building(what: str) -> Iterator[None]:
    """Hold back warnings while highdicom builds an object; what it refuses becomes an error of this package.

    Raises:
        ExportError: with the original error as its cause, whose text is not repeated since it may quote the header.
    """
    try:
        with quiet():
            yield
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ExportError(
            f"The source headers do not allow a DICOM {what}",
            found=f"{type(error).__name__} while it was built",
            expected="a conformant CT series",
            mend="check the series with dciodvfy",
        ) from error


def _read(file: Path, *, whole: bool) -> Dataset:
    from pydicom import dcmread

    try:
        header = dcmread(file, stop_before_pixels=True, force=True, specific_tags=None if whole else list(_READ))
    except OSError as error:
        raise ExportError(
            "A source image cannot be read again",
            found=error.strerror or type(error).__name__,
            mend="keep the DICOM series where it was read from until its objects are written",
        ) from None
    for name, at in (("SOPClassUID", "MediaStorageSOPClassUID"), ("SOPInstanceUID", "MediaStorageSOPInstanceUID")):
        if not header.get(name) and header.file_meta.get(at):
            setattr(header, name, header.file_meta.get(at))
    return header


def _check_identity(images: Sequence[Dataset], expected: Sequence[str]) -> None:
    for name in _IDENTITY:
        missing = sum(not image.get(name) for image in images)
        if missing:
            raise ExportError(
                "The source images cannot be referenced",
                found=f"{missing} of {len(images)} without {name}",
                expected="the four UIDs that identify a DICOM image",
                mend="take the series from the archive again",
            )
    if any(uid and uid != str(image.SOPInstanceUID) for image, uid in zip(images, expected, strict=False)):
        raise ExportError(
            "The source images have changed since the scan was read", mend="read the scan again, then export"
        )


def _check_size(images: Sequence[Dataset], volume: Volume) -> None:
    rows, columns = volume.source.shape[1:]
    if any((image.get("Rows"), image.get("Columns")) != (rows, columns) for image in images):
        raise ExportError(
            "The source images do not have the volume's size",
            found=f"{images[0].get('Rows')} x {images[0].get('Columns')}",
            expected=f"{rows} x {columns}",
        )


def _check_order(images: Sequence[Dataset], volume: Volume) -> None:
    """The files' own positions must run as the volume's slices do: the last guard against a mask put upside down."""
    without = sum(not image.get(name) for image in images for name in ("ImagePositionPatient", *_PLANE[1:]))
    if without:
        raise ExportError("Source images have no position", found=f"{without} attribute(s) missing")
    source = volume.source
    positions = np.array([[float(v) for v in image.ImagePositionPatient] for image in images])
    heights = (positions - np.asarray(source.origin_mm)) @ source.direction[:, 2]
    if abs(heights[0]) > 1 or (np.diff(heights) <= 0).any():
        raise ExportError(
            "The source images do not lie where the volume's slices do",
            found=f"first slice {heights[0]:.1f} mm off, {int((np.diff(heights) <= 0).sum())} out of order",
            mend="read the scan again, then export",
        )


def _clean(header: Dataset) -> None:
    """Empty what is malformed, add what may be empty but must be there."""
    for tag in list(header.keys()):
        if (tag.group in _DESCRIPTIVE_GROUPS or tag == _STUDY_ID) and not _well_formed(header, tag):
            logger.info("a malformed %s is left empty", tag)
            del header[tag]
    for name in _TYPE_2:
        if header.get(name) is None:
            setattr(header, name, "")
    if header.PatientSex not in ("M", "F", "O"):
        header.PatientSex = ""


def _well_formed(header: Dataset, tag: Any) -> bool:
    from pydicom.config import RAISE
    from pydicom.valuerep import DA, TM, validate_value

    try:
        element = header[tag]
        for value in element.value if element.VM > 1 else [element.value]:
            if element.VR == "DA":
                DA(value)
            elif element.VR == "TM":
                TM(value)
            elif element.VR not in ("UI", "SQ"):  # a reference must keep its UID even if it breaks the rules
                validate_value(element.VR, value, RAISE)
    except Exception:  # a malformed value can make the parser fail in any way
        return False
    return True


def _share(images: Sequence[Dataset]) -> None:
    """Give every image the first one's frame of reference, orientation and spacing.

    The reader has found them equal but for rounding; highdicom asks for the same digits.
    """
    first = images[0]
    if not first.get("FrameOfReferenceUID"):
        logger.warning("the source series has no frame of reference; one is derived from its UID")
        first.FrameOfReferenceUID = derive_uid("frame of reference", first.SeriesInstanceUID)
    for image in images[1:]:
        for name in _PLANE:
            setattr(image, name, first.get(name))
