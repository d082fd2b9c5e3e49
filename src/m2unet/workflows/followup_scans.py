"""Which dated scans belong to which patient: from manifests, or from DICOM headers and dates given by hand."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from m2unet.cohort.manifest import ManifestRow, read_manifest
from m2unet.ct.dicom import chosen_series, quiet
from m2unet.ct.dicom_header import numbers
from m2unet.ct.findings import QualityError
from m2unet.ct.identity import identify_scan, scan_files
from m2unet.ct.sniff import sniff
from m2unet.errors import ManifestError, ScanError
from m2unet.workflows.case_names import case_name

if TYPE_CHECKING:
    from pydicom import Dataset

_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LOOKED_AT = 50  # files of a folder, until one is DICOM
_DATE_TAGS = ("AcquisitionDate", "SeriesDate", "StudyDate")


@dataclass(frozen=True)
class DatedScan:
    """One scan of a patient.

    Attributes:
        name: without identifiers.
        path: CT file or DICOM folder.
        date: day of the scan.
        lobes: its lobe mask, or None.
        thickness_mm: slice thickness by the DICOM header, or None.
        accept: codes of errors that the user knows better.
    """

    name: str
    path: Path
    date: datetime.date
    lobes: Path | None = None
    thickness_mm: float | None = None
    accept: tuple[str, ...] = ()


@dataclass(frozen=True)
class DicomFacts:
    """What the header of a scan says that a follow-up needs; None where it is silent."""

    date: datetime.date | None = None
    person: str | None = None
    thickness_mm: float | None = None


@dataclass(frozen=True)
class PatientScans:
    """The scans of one patient, by date.

    Attributes:
        name: usable as a folder: the manifest's pseudonym where it is and does not resemble what the first scan's
            header says of the patient, else ``patient-`` with the digest of the first scan by date.
        scans: two or more.
    """

    name: str
    scans: tuple[DatedScan, ...]


def manifest_patients(path: Path, wanted: Sequence[str] = ()) -> tuple[list[PatientScans], list[str]]:
    """Patients of a manifest with two dated scans or more.

    A row without a date takes it from the header of a DICOM image.

    Args:
        path: the manifest.
        wanted: patient ids; all if empty.

    Returns:
        The patients, and remarks on rows and patients that were left out.

    Raises:
        ManifestError: faults of the manifest, an unknown patient, or no patient with two dated scans.
    """
    manifest = read_manifest(path)
    grouped = manifest.patients()
    unknown = [patient for patient in wanted if patient not in grouped]
    if unknown:
        raise ManifestError(f"{path.name} has no such patient", [f"patient_id {patient!r}" for patient in unknown])
    found: list[PatientScans] = []
    remarks: list[str] = []
    for number, (patient, rows) in enumerate(grouped.items(), 1):
        if wanted and patient not in wanted:
            continue
        dated = [scan for row in rows if (scan := _dated(row)) is not None]
        undated = len(rows) - len(dated)
        if undated:
            remarks.append(f"patient {number}: {undated} scan(s) without a date")
        if len(dated) < 2:
            remarks.append(f"patient {number}: fewer than two dated scans")
            continue
        ordered = _sorted(dated)
        first = identify_scan(ordered[0].path)
        safe = _FOLDER.fullmatch(patient) and not first.patient.resemble(patient)
        found.append(PatientScans(patient if safe else f"patient-{first.short}", ordered))
    if not found:
        raise ManifestError(
            f"No patient of {path.name} has two dated scans",
            remarks,
            mend="fill the column date (YYYY-MM-DD), and give a patient's scans the same patient_id",
        )
    return found, remarks


def given_patient(paths: Sequence[Path], dates: Sequence[str] = (), lobes: Sequence[Path] = ()) -> PatientScans:
    """The scans of one patient given one by one.

    Args:
        paths: CT files or DICOM folders.
        dates: YYYY-MM-DD for each; empty takes them from DICOM headers.
        lobes: a lobe mask for each, or none at all.

    Raises:
        ScanError: counts that differ, a date that is none, headers without a date or of several patients.
    """
    for what, given in (("dates", dates), ("lobe masks", lobes)):
        if given and len(given) != len(paths):
            raise ScanError(f"There must be as many {what} as scans", found=len(given), expected=len(paths))
    if len(paths) < 2:
        raise ScanError("A follow-up needs two scans or a manifest", found=f"{len(paths)} scan")
    scans: list[DatedScan] = []
    people: set[str] = set()
    digests: dict[str, str] = {}
    for number, path in enumerate(paths):
        date = _parse(dates[number]) if dates else None
        facts = dicom_facts(path)
        people |= {facts.person} if facts.person else set()
        date = date or facts.date
        if date is None:
            raise ScanError(
                "A scan has no date", found=path.name, mend="give --date once for each scan, or use a manifest"
            )
        identity = identify_scan(path)
        name, _ = case_name(path, None, identity)
        if identity.digest in digests.values():
            raise ScanError("A scan is given twice", found=name, expected="a scan once")
        digests[name] = identity.short
        scans.append(DatedScan(name, path, date, lobes[number] if lobes else None, facts.thickness_mm))
    if len(people) > 1:
        raise ScanError("The DICOM headers name several patients", found=f"{len(people)} patient IDs", expected="one")
    ordered = _sorted(scans)
    return PatientScans(f"patient-{digests[ordered[0].name]}", ordered)


@quiet()
def dicom_facts(path: Path) -> DicomFacts:
    """What the header of the series that is read says, or of a folder's first DICOM file; nothing for another file."""
    header = _header(path)
    if header is None:
        return DicomFacts()
    dates = (_header_date(str(header.get(tag) or "")) for tag in _DATE_TAGS)
    date = next((found for found in dates if found is not None), None)
    thickness = numbers(header.get("SliceThickness"), 1)
    person = str(header.get("PatientID") or "") or None
    return DicomFacts(date, person, None if thickness is None or thickness[0] <= 0 else float(thickness[0]))


def _header(path: Path) -> Dataset | None:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    if path.is_file() and sniff(path)[0] != "dicom":
        return None
    try:
        return chosen_series(path).slices[0].header
    except (QualityError, OSError):
        pass  # why it cannot be used is said when it is read
    for file in scan_files(path)[:_LOOKED_AT] if path.is_dir() else [path]:
        try:
            return dcmread(file, stop_before_pixels=True, specific_tags=[*_DATE_TAGS, "PatientID", "SliceThickness"])
        except (OSError, InvalidDicomError):
            continue
    return None


def _header_date(text: str) -> datetime.date | None:
    try:
        return datetime.datetime.strptime(text, "%Y%m%d").date()  # a day has no zone
    except ValueError:
        return None


def _dated(row: ManifestRow) -> DatedScan | None:
    facts = dicom_facts(row.image)
    date = row.date or facts.date
    return None if date is None else DatedScan(row.scan_id, row.image, date, row.lobes, facts.thickness_mm, row.accept)


def _sorted(scans: Sequence[DatedScan]) -> tuple[DatedScan, ...]:
    return tuple(sorted(scans, key=lambda scan: (scan.date, scan.name)))


def _parse(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise ScanError("A date is not understood", found=text, expected="YYYY-MM-DD") from None
