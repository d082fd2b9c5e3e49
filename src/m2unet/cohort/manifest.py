"""The manifest: one CSV row per scan, checked whole before any work starts.

Columns are ``scan_id, patient_id, image`` and, where known, ``lobes, severity, grade, site, age, sex, date, lesions``;
all others are the user's own. Paths are relative to the manifest's folder. Severity is 1 (severe) for the grades severe
and critical and 0 (non-severe) for mild and moderate, by the clinical grade at the time of the scan (He et al. 2020).
"""

from __future__ import annotations

import csv
import datetime
import difflib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar, cast

from m2unet.cohort.cells import MAX_AGE, Sex, parse_accept, parse_age, parse_date, parse_sex
from m2unet.cohort.columns import COLUMNS, HEADER_HINT, REQUIRED_COLUMNS, read_header
from m2unet.cohort.table import read_records
from m2unet.ct.findings import ACCEPTABLE
from m2unet.errors import ManifestError
from m2unet.files import write_text

Grade = Literal["mild", "moderate", "severe", "critical"]

SEVERITY_OF_GRADE: Mapping[str, int] = MappingProxyType({"mild": 0, "moderate": 0, "severe": 1, "critical": 1})

_SCAN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names Windows keeps for devices
_SEVERITIES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "0,0": 0, "1,0": 1}

_T = TypeVar("_T")


@dataclass(frozen=True)
class ManifestRow:
    """One scan of a cohort.

    Attributes:
        scan_id: unique, usable as a file name; it names folders and results, so it must not identify a person.
        patient_id: pseudonym shared by a patient's scans.
        image: a CT file or a folder of DICOM slices.
        lobes: lobe mask on the image's grid, a file or a folder of one file a lobe, or None.
        severity: 1 severe, 0 non-severe, None unknown.
        grade: clinical grade the severity rests on, or None.
        site: hospital or scanner, free text, or None.
        age: years, 0-120, or None.
        sex: ``M``, ``F`` or ``O`` (other), or None.
        date: day of the scan, or None.
        lesions: lesion mask on the image's grid, or None.
        accept: codes of errors of this scan that the user knows better, of :data:`m2unet.ct.findings.ACCEPTABLE`.
        extra: columns of the user's own by name, in the order of the file, as text.
    """

    scan_id: str
    patient_id: str
    image: Path
    lobes: Path | None = None
    severity: int | None = None
    grade: Grade | None = None
    site: str | None = None
    age: float | None = None
    sex: Sex | None = None
    date: datetime.date | None = None
    lesions: Path | None = None
    accept: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, in file order.

    Attributes:
        path: where the manifest lies.
        rows: one a scan; ``scan_id`` is unique.
        warnings: oddities that forbid nothing, by row number, without patient identifiers.
    """

    path: Path
    rows: tuple[ManifestRow, ...]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ManifestRow]:
        return iter(self.rows)

    @cached_property
    def _index(self) -> dict[str, ManifestRow]:
        return {row.scan_id: row for row in self.rows}

    def by_id(self, scan_id: str) -> ManifestRow:
        """The row of one scan.

        Raises:
            ManifestError: if there is none.
        """
        try:
            return self._index[scan_id]
        except KeyError:
            near = difflib.get_close_matches(scan_id, self._index, n=3)
            hint = f"did you mean {' or '.join(near)}" if near else None
            raise ManifestError(
                "The manifest has no such scan", [f"{self.path.name}: scan_id {scan_id!r}"], mend=hint
            ) from None

    def with_lobes(self) -> tuple[ManifestRow, ...]:
        """Rows that have a lobe mask."""
        return tuple(row for row in self.rows if row.lobes is not None)

    def with_severity(self) -> tuple[ManifestRow, ...]:
        """Rows whose severity is known."""
        return tuple(row for row in self.rows if row.severity is not None)

    def patients(self) -> dict[str, tuple[ManifestRow, ...]]:
        """Rows by patient, both in file order."""
        grouped: dict[str, list[ManifestRow]] = {}
        for row in self.rows:
            grouped.setdefault(row.patient_id, []).append(row)
        return {patient: tuple(rows) for patient, rows in grouped.items()}

    def select(self, scan_ids: Iterable[str]) -> tuple[ManifestRow, ...]:
        """Rows of the given scans, in the order asked for.

        Raises:
            ManifestError: if a scan is not in the manifest.
        """
        return tuple(self.by_id(scan_id) for scan_id in scan_ids)


def read_manifest(path: str | Path, *, check_files: bool = True) -> Manifest:
    """Read and check a whole manifest.

    Comma, semicolon and tab are understood as separators, also named by a ``sep=`` line; the text is UTF-8, with or
    without a byte-order mark, or UTF-16 with one. Blank rows and columns are skipped. Row numbers are those a
    spreadsheet shows: the header is row 1. Columns of the user's own are kept; a misspelt known one is a fault.

    Args:
        path: the CSV file.
        check_files: also check that every image and mask exists.

    Returns:
        The manifest, its paths joined to its folder, severity filled in from the grade where only that is given.

    Raises:
        ManifestError: listing every fault at once, with row numbers.
    """
    path = Path(path)
    records = read_records(path)
    columns = read_header(records[0][1])
    if columns.faults:
        problem = f"The manifest {path.name} has faults in its header"
        raise ManifestError(problem, columns.faults, mend=HEADER_HINT)
    header, faults = columns.names, list[str]()
    rows: list[tuple[int, ManifestRow]] = []
    for number, cells in records[1:]:
        row, row_faults = _parse_row(header, cells, path.parent, check_files)
        faults += [f"row {number}: {fault}" for fault in row_faults]
        if row is not None:
            rows.append((number, row))
    faults += _duplicate_faults(header, records[1:])
    if len(records) == 1:
        faults.append("there is no row below the header")
    if faults:
        raise ManifestError(f"The manifest {path.name} has {len(faults)} fault(s)", faults, mend="correct these rows")
    return Manifest(path, tuple(row for _, row in rows), (*columns.warnings, *_warnings(rows)))


def write_manifest(rows: Iterable[ManifestRow], path: str | Path) -> None:
    """Write rows as a manifest, atomically; known columns that no row fills are left out, the user's own come last.

    Args:
        rows: the scans; paths may be absolute or relative to the working folder and are written relative to the
            manifest's folder (absolute only where no relative path exists, on another drive).
        path: the CSV file to write or replace.

    Raises:
        ManifestError: if a ``scan_id`` occurs twice or cannot name a file, or a column of the user's own has no name
            or that of a known one.
        StoreError: if the file cannot be written.
    """
    path, rows = Path(path), list(rows)
    records = [_record(row, path.parent) for row in rows]
    faults = [
        f"row {number}: {fault}" for number, record in enumerate(records, 2) for fault in _id_faults(record["scan_id"])
    ]
    faults += _repeated([(number, record["scan_id"]) for number, record in enumerate(records, 2)])
    own = dict.fromkeys(name for row in rows for name in row.extra)
    faults += [f"a column of your own is called {name!r}" for name in own if not name or name.lower() in COLUMNS]
    if faults:
        raise ManifestError(f"The manifest {path.name} would have faults", faults)
    columns = [c for c in COLUMNS if c in REQUIRED_COLUMNS or any(record[c] for record in records)]
    columns += dict.fromkeys(name for record in records for name in record if name not in COLUMNS)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_text(path, text.getvalue())


# --- one row ---------------------------------------------------------------------------------------------------------


class _Cells:
    """The cells of one row, collecting faults as they are read."""

    def __init__(self, values: dict[str, str], folder: Path, check_files: bool) -> None:
        self.values = values
        self.folder = folder
        self.check_files = check_files
        self.faults: list[str] = []

    def text(self, column: str) -> str | None:
        return self.values.get(column) or None

    def parsed(self, column: str, parse: Callable[[str], _T | None], expected: str) -> _T | None:
        text = self.text(column)
        if text is None:
            return None
        value = parse(text)
        if value is None:
            self.faults.append(f"{column} {text!r} is not {expected}")
        return value

    def required(self, column: str) -> str:
        text = self.text(column)
        if text is None:
            self.faults.append(f"{column} is empty")
        return text or ""

    def path(self, column: str, *, folder_allowed: bool | Callable[[Path], bool] = False) -> Path | None:
        text = self.text(column)
        if text is None:
            return None
        path = self.folder / text
        if self.check_files:
            fault = _path_fault(path, text, folder_allowed(path) if callable(folder_allowed) else folder_allowed)
            self.faults += [f"{column} {text!r} {fault}"] if fault else []
        return path


def _parse_row(
    header: Sequence[str], cells: Sequence[str], folder: Path, check_files: bool
) -> tuple[ManifestRow | None, list[str]]:
    extra = [cell for cell in cells[len(header) :] if cell.strip()]
    if extra:
        return None, [f"{len(cells)} cells where the header has {len(header)}; quote cells that hold a separator"]
    padded = [*cells, *[""] * (len(header) - len(cells))]
    row = _Cells({c: v.strip() for c, v in zip(header, padded, strict=False)}, folder, check_files)
    scan_id, patient_id = row.required("scan_id"), row.required("patient_id")
    row.faults += _id_faults(scan_id) if scan_id else []
    row.required("image")
    severity, grade = _severity(row)
    parsed = ManifestRow(
        scan_id=scan_id,
        patient_id=patient_id,
        image=row.path("image", folder_allowed=True) or folder,
        lobes=row.path("lobes", folder_allowed=_holds_lobes),
        severity=severity,
        grade=grade,
        site=row.text("site"),
        age=row.parsed("age", parse_age, f"a number of years from 0 to {MAX_AGE}"),
        sex=row.parsed("sex", parse_sex, "M, F or O"),
        date=row.parsed("date", parse_date, "a date written YYYY-MM-DD"),
        lesions=row.path("lesions"),
        accept=row.parsed("accept", parse_accept, f"of {', '.join(ACCEPTABLE)}, separated by spaces") or (),
        extra={name: row.values[name] for name in header if name not in COLUMNS},
    )
    return (None if row.faults else parsed), row.faults


def _severity(row: _Cells) -> tuple[int | None, Grade | None]:
    severity = row.parsed("severity", _SEVERITIES.get, "0 (non-severe), 1 (severe) or empty")
    names = {name: name for name in SEVERITY_OF_GRADE}
    grade = row.parsed("grade", lambda text: names.get(text.lower()), "one of " + ", ".join(SEVERITY_OF_GRADE))
    if grade is not None and row.text("severity") is None:
        severity = SEVERITY_OF_GRADE[grade]
    elif grade is not None and severity is not None and severity != SEVERITY_OF_GRADE[grade]:
        row.faults.append(f"grade {grade!r} contradicts severity {severity} (1 = severe or critical)")
    return severity, cast("Grade | None", grade)


def _id_faults(scan_id: str) -> list[str]:
    if _SCAN_ID.fullmatch(scan_id) and not _RESERVED.fullmatch(scan_id) and not scan_id.endswith("."):
        return []
    return [
        f"scan_id {scan_id!r} cannot name a file: use up to 100 letters, digits, '.', '_' or '-', "
        "starting with a letter or digit, and no name Windows reserves"
    ]


def _holds_lobes(path: Path) -> bool:
    from m2unet.cohort.masks import is_mask_folder

    return is_mask_folder(path)


def _path_fault(path: Path, text: str, folder_allowed: bool) -> str | None:
    if path.is_dir():
        if not folder_allowed:
            return "is a folder, not a file"
        return None if any(path.iterdir()) else "is an empty folder"
    if path.is_file():
        return None
    if path.is_symlink():
        return "is a link that leads nowhere; fetch the file (datalad get, git annex get)"
    return "does not exist; write paths with forward slashes" if "\\" in text else "does not exist"


# --- rows against each other -----------------------------------------------------------------------------------------


def _duplicate_faults(header: Sequence[str], records: Sequence[tuple[int, list[str]]]) -> list[str]:
    column = header.index("scan_id")
    return _repeated([(number, cells[column].strip()) for number, cells in records if len(cells) > column])


def _repeated(numbered: Iterable[tuple[int, str]]) -> list[str]:
    """Compared without case, because some file systems do so."""
    first: dict[str, int] = {}
    faults = []
    for number, scan_id in numbered:
        seen = first.setdefault(scan_id.casefold(), number)
        if scan_id and seen != number:
            faults.append(f"row {number}: scan_id {scan_id!r} was already used in row {seen}")
    return faults


def _warnings(rows: Sequence[tuple[int, ManifestRow]]) -> Iterator[str]:
    patients: dict[str, list[tuple[int, ManifestRow]]] = {}
    images: dict[Path, list[int]] = {}
    for number, row in rows:
        patients.setdefault(row.patient_id, []).append((number, row))
        images.setdefault(row.image, []).append(number)
    for members in patients.values():
        for column in ("severity", "sex"):
            known = [(n, getattr(row, column)) for n, row in members if getattr(row, column) is not None]
            if len({value for _, value in known}) > 1:
                yield f"{_rows(n for n, _ in known)}: one patient's scans differ in {column}"
    for numbers in images.values():
        if len(numbers) > 1:
            yield f"{_rows(numbers)}: the same image"


def _rows(numbers: Iterable[int]) -> str:
    return "rows " + ", ".join(str(number) for number in numbers)


def _record(row: ManifestRow, folder: Path) -> dict[str, str]:
    values: dict[str, object] = {column: getattr(row, column) for column in COLUMNS}
    for column in ("image", "lobes", "lesions"):
        path = values[column]
        values[column] = _relative(path, folder) if isinstance(path, Path) else None
    if row.age is not None:
        values["age"] = f"{row.age:g}"
    values["accept"] = " ".join(row.accept)
    return {column: "" if value is None else str(value) for column, value in (dict(row.extra) | values).items()}


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def can_name_files(text: str) -> bool:
    """Whether a text may be a ``scan_id``, which names folders and files on every system."""
    return not _id_faults(text)
