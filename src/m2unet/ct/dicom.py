"""Read a DICOM folder: choose one CT series by a stated rule, check its geometry from the headers, stack its voxels.

The rule (``choose``): of the CT series with at least two slices and sound geometry, axial ones before others, original
reconstructions before derived ones; of those that cover at least 80 % of the longest, the thinnest distance between
slices, then a lung kernel, then the most slices, then the lowest series number.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m2unet.ct.dicom_files import XRAY_MODALITIES, Contents, Slice, nothing_found, read_contents, whole
from m2unet.ct.dicom_pixels import read_plane, read_voxels, require_decoders
from m2unet.ct.dicom_stack import Stack, arrange
from m2unet.ct.findings import Finding, QualityError, finding
from m2unet.ct.raw import RawScan, geometry

COVERAGE = 0.8
"""Of the longest series' extent: a shorter one is a part of the chest only."""

# by maker: GE LUNG, BONE, EDGE; Siemens B, Br, Bl, I 50-89; Canon FC30, FC50-59, FC80-89; Philips L, YA-YD, D, E
_LUNG_KERNEL = re.compile(r"lung|bone|edge|sharp|^(b|br|bl|i)[5-8]\d|^fc(30|5\d|8\d)|^(l|y[a-d]|d|e)$", re.IGNORECASE)
_PARTIAL = frozenset({"LOCALIZER", "MIP", "MPR", "MINIP", "PROJECTION IMAGE", "SCREEN SAVE", "DOSE_INFO", "CSA MPR"})


@dataclass(frozen=True)
class Candidate:
    """One series that could be the scan.

    Attributes:
        slices: all its CT slices but localisers.
        stack: their order and geometry.
    """

    slices: tuple[Slice, ...]
    stack: Stack

    @property
    def original(self) -> bool:
        """Whether it is an original reconstruction rather than a derived or secondary image."""
        kinds = image_type(self.slices[0])
        return not (set(kinds) & (_PARTIAL | {"DERIVED", "SECONDARY"}))

    @property
    def kernel(self) -> str:
        """Convolution kernel, empty if unknown."""
        value = self.slices[0].header.get("ConvolutionKernel") or ""
        return str(value if isinstance(value, str) else next(iter(value), ""))

    @property
    def number(self) -> int:
        """Series number; a high one if there is none."""
        found = whole(self.slices[0].header.get("SeriesNumber"))
        return 1 << 31 if found is None else found

    def said(self) -> str:
        """The series in words, without identifiers."""
        spacing = f"{self.stack.spacing_mm:.2f} mm apart" if len(self.stack.slices) > 1 else "no stack"
        axial = "axial" if self.stack.axial else "not axial"
        kernel = f", kernel {self.kernel}" if self.kernel else ""
        return f"{len(self.slices)} slices {spacing}, {axial}{kernel}"


def image_type(item: Slice) -> tuple[str, ...]:
    """Values of ImageType, upper case."""
    value = item.header.get("ImageType") or ()
    return tuple(str(v).upper() for v in ([value] if isinstance(value, str) else value))


def read_dicom(path: Path) -> RawScan:
    """Read the CT series of a folder tree, or a multi-frame file.

    Args:
        path: a folder, or a DICOM file.

    Raises:
        QualityError: there is no usable CT series.
        MissingExtraError: compressed slices whose decoder is not installed.
    """
    with _quiet():
        return _read_dicom(path)


@contextmanager
def _quiet() -> Iterator[None]:
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


def _read_dicom(path: Path) -> RawScan:
    contents = read_contents(path)
    if not contents.slices:
        raise QualityError([nothing_found(contents)])
    findings = _skipped(contents)
    chosen = choose(candidates(contents.slices, findings), findings)
    findings += chosen.stack.findings
    if not chosen.stack.usable:
        raise QualityError(findings)
    slices = chosen.stack.slices
    findings += _header_findings(chosen)
    if any(item.level == "error" for item in findings):
        raise QualityError(findings)
    require_decoders(slices)
    findings += _compare_twins(chosen.stack)
    try:
        array = read_voxels(slices)
    except QualityError as error:
        raise QualityError([*findings, *error.findings]) from None
    first = slices[0]
    assert first.orientation is not None and first.spacing_mm is not None and first.position is not None
    # a row runs along i with the distance of columns, a column along j with the distance of rows (C.7.6.2.1.1)
    columns = (
        first.orientation[0] * first.spacing_mm[1],
        first.orientation[1] * first.spacing_mm[0],
        chosen.stack.step,
    )
    spacing, direction = geometry(np.stack(columns, axis=1))
    x, y, z = (float(value) for value in first.position)
    bits = whole(first.header.get("BitsStored")) or 16
    return RawScan(array, spacing, (x, y, z), direction, "dicom", header_facts(slices), tuple(findings), bits)


def candidates(slices: Sequence[Slice], findings: list[Finding]) -> list[Candidate]:
    """The CT series among all slices.

    Args:
        slices: of every series.
        findings: notes are added here.

    Raises:
        QualityError: several patients, or no CT slices.
    """
    patients = {(str(s.header.get("PatientID") or ""), str(s.header.get("PatientName") or "")) for s in slices}
    if len({patient for patient, _ in patients}) > 1:
        raise QualityError([*findings, finding("several-patients", f"{len({p for p, _ in patients})} patients")])
    if len({str(s.header.get("StudyInstanceUID") or "") for s in slices}) > 1:
        findings.append(finding("several-studies", "several studies of one patient"))
    ct = [s for s in slices if _modality(s) == "CT"]
    if not ct:
        raise QualityError([*findings, _no_ct(slices)])
    scans = [s for s in ct if "LOCALIZER" not in image_type(s)]
    if not scans:
        raise QualityError([*findings, finding("x-ray", "only localisers (scout views) of a CT")])
    left = len(slices) - len(scans)
    if left:
        findings.append(finding("files-skipped", f"{left} images that are localisers or no CT"))
    series: dict[str, list[Slice]] = defaultdict(list)
    for item in scans:
        series[item.series].append(item)
    return [Candidate(tuple(group), arrange(group)) for group in series.values()]


def choose(series: Sequence[Candidate], findings: list[Finding]) -> Candidate:
    """One of the candidates, by the rule above.

    Args:
        series: at least one.
        findings: a note is added here if there was a choice.
    """
    if len(series) == 1:
        return series[0]
    usable = [c for c in series if c.stack.usable and len(c.stack.slices) > 1] or list(series)
    axial = [c for c in usable if c.stack.axial] or usable
    original = [c for c in axial if c.original] or axial
    longest = max(c.stack.coverage_mm for c in original)
    whole_chest = [c for c in original if c.stack.coverage_mm >= COVERAGE * longest]
    chosen = min(
        whole_chest,
        key=lambda c: (
            round(c.stack.spacing_mm, 2),
            _LUNG_KERNEL.search(c.kernel) is None,
            -len(c.stack.slices),
            c.number,
            c.slices[0].series,
        ),
    )
    others = "; ".join(c.said() for c in sorted(series, key=lambda c: c.number) if c is not chosen)
    findings.append(finding("series-chosen", f"1 of {len(series)} series: {chosen.said()}; not taken: {others}"))
    return chosen


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


def _modality(item: Slice) -> str:
    return str(item.header.get("Modality") or "").upper()


def _no_ct(slices: Sequence[Slice]) -> Finding:
    found = sorted({_modality(s) or "none" for s in slices})
    code = "x-ray" if set(found) <= XRAY_MODALITIES else "not-ct"
    return finding(code, f"modality {', '.join(found)} in {len(slices)} image(s)")


def _skipped(contents: Contents) -> list[Finding]:
    found: list[Finding] = []
    if contents.damaged:
        found.append(finding("slices-left-out", f"{contents.damaged} DICOM file(s) whose header is damaged"))
    count = sum(contents.others.values())
    if count:
        found.append(finding("files-skipped", f"{count} file(s) that are no DICOM images"))
    return found


def _header_findings(chosen: Candidate) -> list[Finding]:
    slices = chosen.stack.slices
    found: list[Finding] = []
    if any((whole(s.header.get("SamplesPerPixel")) or 1) > 1 for s in slices):
        found.append(finding("dimensions", "colour images: several values a voxel"))
    without = sum(s.slope is None or s.intercept is None for s in slices)
    if without:
        found.append(finding("no-rescale", f"{without} of {len(slices)} slices"))
    kinds = {str(s.header.get("RescaleType") or "HU").upper() for s in slices}
    if kinds - {"HU", "US", "HU_MOD"}:
        found.append(finding("implausible-hu", f"rescaled values are {', '.join(sorted(kinds))}, not HU"))
    if any(str(s.header.get("LossyImageCompression") or "") == "01" for s in slices):
        found.append(finding("lossy", "the header says so"))
    if not chosen.original:
        found.append(finding("derived", f"image type {' '.join(image_type(slices[0]))}"))
    if any("MONOCHROME1" in str(s.header.get("PhotometricInterpretation") or "") for s in slices):
        found.append(finding("implausible-hu", "photometric interpretation MONOCHROME1, which CT does not use"))
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
