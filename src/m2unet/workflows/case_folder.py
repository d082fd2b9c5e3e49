"""The folder of one case: whose it is, what may be removed from it, and what is said of a case that failed.

A folder belongs to one scan. It is claimed before the scan is read, by a file that only one process can make, and the
claim ends when ``result.json`` or ``error.json`` says whose it is. What other people put there is left alone.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m2unet.ct.identity import ScanIdentity
from m2unet.errors import OutputError
from m2unet.files import owner_mark, sweep, write_json, write_text
from m2unet.report.viewer import DATA_FILE, VIEWER_FILE
from m2unet.workflows.severity import EVIDENCE_FILE

RESULT_FILE = "result.json"
ERROR_FILE = "error.json"
REPORT_FILE = "report.html"
SEG_FILE = "lobes.seg.dcm"
SR_FILE = "report.sr.dcm"
CLAIM_FILE = ".claim.json"
REPLACED_FILE = ".replaced.json"
"""An earlier ``result.json`` while its files are being replaced: a process killed meanwhile leaves no false result."""

SOURCES = "sources"
ASSETS = "assets"
ERROR_SCHEMA = "m2unet.error/1"
SOURCES_FILE = "sources.csv"
SOURCE_COLUMNS = ("case", "scan_digest", "path", "study_instance_uid", "series_instance_uid")
RESERVED = frozenset({SOURCES, ASSETS, "cohort.csv", "cohort.html", SOURCES_FILE})
"""Names in a folder of results that no case may have."""

_ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd")
OWN_FILES = frozenset(
    {f"{mask}{ending}" for mask in ("lobes", "opacity", "heat") for ending in _ENDINGS}
    | {"montage.png", "thumbnail.png", EVIDENCE_FILE, REPORT_FILE, VIEWER_FILE, DATA_FILE, SEG_FILE, SR_FILE}
)
"""What a case may hold beside ``result.json``; exporters add their own."""

_WAIT = 2.0


class OccupiedError(OutputError):
    """The folder of a case holds something of another scan, or files of somebody else."""


@dataclass(frozen=True)
class SourceRecord:
    """What ``sources/CASE/sources.csv`` holds: where a case comes from. It stays on the user's disk.

    Attributes:
        case: its name.
        digest, images: of the scan, see :class:`m2unet.ct.identity.ScanIdentity`.
        path: the scan.
        study_instance_uid, series_instance_uid: None where the scan is not DICOM.
        columns: the user's own columns of a manifest.
    """

    case: str
    digest: str
    images: str
    path: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)

    def row(self) -> dict[str, str]:
        """One row of ``sources.csv``."""
        values = (self.case, self.digest, self.path, self.study_instance_uid, self.series_instance_uid)
        return dict(zip(SOURCE_COLUMNS, values, strict=True))

    def write(self, file: Path) -> None:
        """Write the row, with what is kept for the tables beside it.

        Raises:
            OutputError: if it cannot be written.
        """
        more = {"images_digest": self.images, "own_columns": json.dumps(dict(self.columns))}
        write_text(file, csv_text([*SOURCE_COLUMNS, *more], [self.row() | more]))

    @classmethod
    def read(cls, file: Path) -> SourceRecord | None:
        """What :meth:`write` wrote; None if there is none, or it is damaged."""
        try:
            row = next(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
            columns = {str(name): str(value) for name, value in json.loads(row["own_columns"]).items()}
            case, digest, path, study, series = (row[name] for name in SOURCE_COLUMNS)
            return cls(case, digest, row["images_digest"], path, study, series, columns)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
            return None


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> str:
    """A CSV table."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


@dataclass(frozen=True)
class CaseFolder:
    """The folder of one case.

    Attributes:
        out: folder of all results.
        name: of the case.
    """

    out: Path
    name: str

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.out / self.name

    @property
    def source_file(self) -> Path:
        """Where the case comes from; local."""
        return self.out / SOURCES / self.name / SOURCES_FILE

    def claim(self, identity: ScanIdentity, record: SourceRecord) -> Claim:
        """Take the folder for a scan, or find it taken.

        Args:
            identity: of the scan.
            record: what the claimed case is read from; written to ``sources``.

        Raises:
            OccupiedError: the folder holds another scan's result, or files that are not results.
            OutputError: it cannot be written.
        """
        self._check_spelling()
        self._check_holder(identity, record.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            resumed = self._make_claim(identity)
        except OSError as error:
            raise OutputError(
                "The folder of a case cannot be written", found=f"{self.name}: {error.strerror or error}"
            ) from error
        try:
            self._check_holder(identity, record.path)  # another process may have finished meanwhile
            record.write(self.source_file)
        except BaseException:
            self.release()
            raise
        return Claim(self, identity.digest, resumed, _stamp(self.path / RESULT_FILE))

    def _check_spelling(self) -> None:
        """Names that some file systems cannot tell apart would be one folder there."""
        wanted = _folded(self.name)
        if any(other != self.name and _folded(other) == wanted for other in _names(self.out)):
            raise _occupied(self.name, "a case whose name differs in capitals or accents alone")

    def _check_holder(self, identity: ScanIdentity, path: str) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise _occupied(self.name, "a file of that name")
        held = read_json_file(self.path / RESULT_FILE)
        if held is not None:
            if not self._same_scan(held, identity, path):
                raise _occupied(self.name, "the result of another scan")
            return
        claimed = self._read_claim()
        if claimed is not None:
            if claimed.get("digest") != identity.digest or claimed.get("images") != identity.images:
                raise _occupied(self.name, "what a process left, or is writing, of another scan")
            return
        foreign = sorted(OWN_FILES & set(_names(self.path)))
        if foreign:
            raise _occupied(self.name, f"{', '.join(foreign[:3])}, and nothing that says of which scan")

    def _same_scan(self, held: dict[str, Any], identity: ScanIdentity, path: str) -> bool:
        scan = held.get("scan")
        scan = scan if isinstance(scan, dict) else {}
        source = SourceRecord.read(self.source_file)
        digest = scan.get("digest") or (source and source.digest)
        if digest is None:  # of a version that kept no digest
            return bool(held.get("source_fingerprint")) and held["source_fingerprint"] == identity.fingerprint
        if digest != identity.digest:
            return False
        images = scan.get("images") or (source and source.images)
        return images in (None, identity.images) or (source is not None and source.path == path)

    def _make_claim(self, identity: ScanIdentity) -> bool:
        """Returns whether a claim of the same scan was there already: left by a killed process, or of one at work."""
        file, text = self.path / CLAIM_FILE, json.dumps(_claim_text(identity)).encode()
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            claimed = self._read_claim() or {}
            if claimed.get("digest") != identity.digest or claimed.get("images") != identity.images:
                raise _occupied(self.name, "what a process left, or is writing, of another scan") from None
            write_json(file, _claim_text(identity))
            return True
        with os.fdopen(handle, "wb") as stream:
            stream.write(text)
        return False

    def _read_claim(self) -> dict[str, Any] | None:
        """The claim, None without one; a process may be about to write it."""
        file = self.path / CLAIM_FILE
        until = time.monotonic() + _WAIT
        while file.is_file():
            found = read_json_file(file)
            if found is not None or time.monotonic() > until:
                return found or {}
            time.sleep(0.02)
        return None

    def release(self) -> None:
        """End this process's claim; of a folder with nothing in it nothing stays."""
        claimed = read_json_file(self.path / CLAIM_FILE)
        if claimed is not None and claimed.get("owner") == owner_mark():
            with suppress(OSError):
                (self.path / CLAIM_FILE).unlink()
        with suppress(OSError):
            self.path.rmdir()


@dataclass(frozen=True)
class Claim:
    """A folder that is this scan's.

    Attributes:
        folder: which.
        digest: of the scan.
        resumed: a claim of the same scan was there: of a killed process, or of one at work.
        before: what ``result.json`` was when the folder was claimed.
    """

    folder: CaseFolder
    digest: str
    resumed: bool
    before: tuple[int, ...] | None

    def fail(self, message: str, findings: Sequence[dict[str, str]]) -> None:
        """Leave ``error.json`` and nothing of earlier results of this scan.

        What another process finished of the same scan meanwhile is kept.

        Raises:
            OSError, OutputError: if the folder cannot be written.
        """
        path = self.folder.path
        if _stamp(path / RESULT_FILE) not in (None, self.before):
            return
        owned = owned_files(path) | (OWN_FILES if self.resumed else frozenset())
        remove_result(path)
        remove_files(path, owned)
        sweep(path)
        document = {"schema": ERROR_SCHEMA, "case": self.folder.name, "scan_digest": self.digest, "error": message}
        write_json(path / ERROR_FILE, {**document, "findings": list(findings)})


def owned_files(folder: Path) -> frozenset[str]:
    """Names of the files that results of this folder, also those being replaced, say are theirs."""
    found: set[str] = set()
    for name in (RESULT_FILE, REPLACED_FILE):
        files = (read_json_file(folder / name) or {}).get("files")
        if isinstance(files, dict):
            found |= {file for file in files.values() if isinstance(file, str) and Path(file).name == file}
    return frozenset(found)


def begin_replacing(folder: Path) -> None:
    """From here on the files of an earlier result are replaced: it no longer counts as one."""
    with suppress(FileNotFoundError):
        (folder / RESULT_FILE).replace(folder / REPLACED_FILE)


def remove_result(folder: Path) -> None:
    """Remove what says that there is a result."""
    for name in (RESULT_FILE, REPLACED_FILE):
        (folder / name).unlink(missing_ok=True)


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files of a folder by name."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def read_json_file(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; empty if it is damaged, None if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _claim_text(identity: ScanIdentity) -> dict[str, str]:
    return {"digest": identity.digest, "images": identity.images, "owner": owner_mark()}


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKD", name).casefold()


def _occupied(name: str, held: str) -> OccupiedError:
    return OccupiedError(
        "The folder of this case is not this scan's, and nothing is written there",
        found=f"{name} holds {held}",
        mend="name the case otherwise (--name, or scan_id in a manifest), choose another --out, or delete that folder "
        "if nobody needs it",
    )
