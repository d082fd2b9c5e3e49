"""Read a DICOM folder: take one CT series (``dicom_choice``), check its geometry from the headers, stack its voxels."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from m2unet.ct.dicom_choice import Candidate, asked_for, candidates, check_patients, choose, image_type
from m2unet.ct.dicom_files import Contents, nothing_found, read_contents
from m2unet.ct.dicom_header import RESCALE, Slice, element, unusable_elements, whole
from m2unet.ct.dicom_pixels import read_plane, read_voxels, require_decoders
from m2unet.ct.dicom_stack import Stack
from m2unet.ct.findings import Finding, QualityError, finding
from m2unet.ct.raw import Geometry, RawScan, geometry

_HU_TYPES = frozenset({"HU", "US", "HU_MOD"})
"""US is unspecified, which for CT has always meant HU."""


def read_dicom(path: Path, *, series: str | None = None) -> RawScan:
    """Read the CT series of a folder tree, or a multi-frame file.

    Args:
        path: a folder, or a DICOM file.
        series: SeriesInstanceUID of the one to read, or the first six or more digits of its digest
            (:func:`m2unet.ct.identity.uid_digest`); chosen by rule if None.

    Raises:
        QualityError: there is no usable CT series, or not the one asked for.
        MissingExtraError: compressed slices whose decoder is not installed.
    """
    with quiet():
        return _read_dicom(path, series)


def chosen_series(path: Path, *, series: str | None = None) -> Candidate:
    """The series that :func:`read_dicom` would read, from the headers alone.

    Args:
        path: a folder, or a DICOM file.
        series: as for :func:`read_dicom`.

    Raises:
        QualityError: there is no CT series, no rule decides between several, or it is not the one asked for. A series
            with faults of geometry is returned all the same.
    """
    with quiet():
        return _choice(path, series)[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back pydicom's warnings: they quote header values, which may identify the patient."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _choice(path: Path, series: str | None) -> tuple[Candidate, list[Finding]]:
    """The series to read and what was noticed on the way to it."""
    contents = read_contents(path)
    if not contents.slices:
        raise QualityError(nothing_found(contents))
    findings = _skipped(contents)
    if series is None:
        check_patients(contents.slices, findings)
        return choose(candidates(contents.slices, findings), findings), findings
    return asked_for(candidates(contents.slices, findings), series), findings


def _read_dicom(path: Path, series: str | None) -> RawScan:
    chosen, findings = _choice(path, series)
    findings += chosen.stack.findings
    if not chosen.stack.usable:
        raise QualityError(findings)
    slices = chosen.stack.slices
    findings += _header_findings(chosen)
    if any(item.level == "error" for item in findings):
        raise QualityError(findings)
    spacing, origin, direction = _geometry(chosen.stack, findings)
    require_decoders(slices)
    findings += _compare_twins(chosen.stack)
    try:
        array = read_voxels(slices)
    except QualityError as error:
        raise QualityError([*findings, *error.findings]) from None
    bits = whole(slices[0].header.get("BitsStored")) or 16
    return RawScan(array, spacing, origin, direction, "dicom", header_facts(slices), tuple(findings), bits)


def _geometry(stack: Stack, findings: Sequence[Finding]) -> Geometry:
    first = stack.slices[0]
    assert first.orientation is not None and first.spacing_mm is not None and first.position is not None
    # a row runs along i with the distance of columns, a column along j with the distance of rows (C.7.6.2.1.1)
    columns = (
        first.orientation[0] * first.spacing_mm[1],
        first.orientation[1] * first.spacing_mm[0],
        stack.step,
    )
    named = f"{element('PixelSpacing')}, {element('ImagePositionPatient')}"
    try:
        spacing, direction = geometry(np.stack(columns, axis=1), (len(stack.slices), *first.shape), named)
    except QualityError as error:
        raise QualityError([*findings, *error.findings]) from None
    x, y, z = (float(value) for value in first.position)
    return spacing, (x, y, z), direction


def header_facts(slices: Sequence[Slice]) -> dict[str, Any]:
    """What a volume keeps of its DICOM headers, for exports that refer to the images. Never to be logged.

    Args:
        slices: in the order of the source array's slices.
    """
    header = slices[0].header

    def text(name: str) -> str | None:
        value = header.get(name)
        return None if value in (None, "") else str(value)

    def number(name: str) -> float | None:
        try:
            return float(header.get(name))
        except (TypeError, ValueError):
            return None

    return {
        "study_instance_uid": text("StudyInstanceUID"),
        "series_instance_uid": text("SeriesInstanceUID"),
        "frame_of_reference_uid": text("FrameOfReferenceUID"),
        "sop_class_uid": text("SOPClassUID"),
        "sop_instance_uids": tuple(str(s.header.get("SOPInstanceUID") or "") for s in slices),
        "files": tuple(str(s.path) for s in slices),
        "frames": tuple(s.frame for s in slices),
        "manufacturer": text("Manufacturer"),
        "model": text("ManufacturerModelName"),
        "kernel": text("ConvolutionKernel"),
        "slice_thickness_mm": number("SliceThickness"),
        "kvp": number("KVP"),
        "patient_position": text("PatientPosition"),
    }


def _skipped(contents: Contents) -> list[Finding]:
    found = contents.faults()
    count = sum(contents.others.values())
    if count:
        found.append(finding("files-skipped", f"{count} file(s) that are no DICOM images"))
    return found


def _header_findings(chosen: Candidate) -> list[Finding]:
    slices = chosen.stack.slices
    found: list[Finding] = []
    if any((whole(s.header.get("SamplesPerPixel")) or 1) > 1 for s in slices):
        found.append(finding("dimensions", "colour images: several values a voxel"))
    found += _rescale_findings(slices)
    found += _uid_findings(slices)
    if any(str(s.header.get("LossyImageCompression") or "") == "01" for s in slices):
        found.append(finding("lossy", "the header says so"))
    if not chosen.original:
        found.append(finding("derived", f"image type {' '.join(image_type(slices[0]))}"))
    if any("MONOCHROME1" in str(s.header.get("PhotometricInterpretation") or "") for s in slices):
        found.append(finding("implausible-hu", "photometric interpretation MONOCHROME1, which CT does not use"))
    return found


def _rescale_findings(slices: Sequence[Slice]) -> list[Finding]:
    """Whether the headers say, and say alike, how stored values become HU."""
    found: list[Finding] = []
    values = {s.unusable.get(name) for s in slices for name in RESCALE}
    partly = any(0 < sum(name in s.unusable for s in slices) < len(slices) for name in RESCALE)
    said = unusable_elements(slices, RESCALE)
    if partly or values - {None, ""}:
        found.append(finding("bad-rescale", said))
    elif said and any("ModalityLUTSequence" in s.header for s in slices):
        found.append(
            finding("bad-rescale", f"{said}; {element('ModalityLUTSequence')}, which is not read, has its place")
        )
    elif said:
        found.append(finding("no-rescale", said))
    kinds = {s.rescale_type for s in slices}
    if kinds - _HU_TYPES:
        named = f"{element('RescaleType')} is {', '.join(sorted(kinds))}"
        mixed = bool(kinds & {"HU", "HU_MOD"})
        found.append(
            finding("bad-rescale", f"{named}: some slices are not HU")
            if mixed
            else finding("implausible-hu", f"{named}, not HU")
        )
    return found


def _uid_findings(slices: Sequence[Slice]) -> list[Finding]:
    """Whether each file has an instance UID of its own, and the series one study and one frame of reference."""
    uids = [str(s.header.get("SOPInstanceUID") or "") for s in slices if s.frame is None]
    known = [uid for uid in uids if uid]
    found: list[Finding] = []
    if len(set(known)) < len(known):
        said = f"{element('SOPInstanceUID')}: {len(set(known))} different one(s) in {len(known)} slices"
        found.append(finding("bad-uids", said))
    for name, code in (("StudyInstanceUID", "bad-uids"), ("FrameOfReferenceUID", "contradictory-geometry")):
        different = {str(s.header.get(name) or "") for s in slices} - {""}
        if len(different) > 1:
            found.append(finding(code, f"{element(name)}: {len(different)} different ones in one series"))
    return found


def _compare_twins(stack: Stack) -> list[Finding]:
    if not stack.twins:
        return []
    pairs = [(read_plane(kept), read_plane(other)) for kept, other in stack.twins]
    differ = sum(a is None or b is None or not np.array_equal(a, b) for a, b in pairs)
    if differ:
        said = f"{differ} place(s) with several slices that differ"
        raise QualityError([*stack.findings, finding("duplicate-slices", said, "error")])
    return [finding("duplicate-slices", f"{len(pairs)} slice(s) were there twice, alike")]
