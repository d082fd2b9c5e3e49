"""The table and the page of all cases in a folder of results, always made from what the folder holds."""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from m2unet.errors import ConfigError, M2UNetError
from m2unet.files import sweep, write_text
from m2unet.report.cohort_page import CohortCase
from m2unet.report.result import ResultDocument
from m2unet.workflows.case_folder import (
    ASSETS,
    ERROR_FILE,
    ERROR_SCHEMA,
    RESULT_FILE,
    SOURCE_COLUMNS,
    SOURCES,
    SOURCES_FILE,
    CaseFolder,
    SourceRecord,
    csv_text,
    read_json_file,
)
from m2unet.workflows.cohort_page import PAGE_FILE, TABLE_FILE, write_cohort_page

logger = logging.getLogger(__name__)

_ATTEMPTS = 20
_SIGNS = {
    TABLE_FILE: re.compile(r"\ufeff?case,(scan_digest,)?status,"),
    SOURCES_FILE: re.compile(r"\ufeff?case,scan_digest,path,"),
    PAGE_FILE: re.compile(rf'\s*<!doctype html>.*href="{re.escape(TABLE_FILE)}"', re.DOTALL),
}
"""How files of this package begin."""

_Stamp = tuple[int, int, int] | None
_Stamps = tuple[_Stamp, _Stamp, _Stamp]


@dataclass(frozen=True)
class Collected:
    """What a folder of results holds.

    Attributes:
        cases: finished and failed ones, by name.
        files: tables and pages written.
    """

    cases: tuple[CohortCase, ...]
    files: tuple[Path, ...] = ()


class CohortFolder:
    """Tables and page of a folder of results; what was read once is not read again until it changes.

    Args:
        out: the folder.
        page: whether to write ``cohort.html``; one that is there is kept up to date in any case.
    """

    def __init__(self, out: Path, *, page: bool = True) -> None:
        self.out = out
        self.page = page
        self._read: dict[str, tuple[_Stamps, CohortCase | None, dict[str, str]]] = {}
        self._written: dict[str, _Stamps] | None = None

    def check(self) -> None:
        """Find out whether tables of somebody else are in the way.

        Raises:
            ConfigError: naming them.
        """
        foreign = [name for name, sign in _SIGNS.items() if not _is_own(self.out / name, sign)]
        if foreign:
            raise ConfigError(
                "The folder of results holds files that are not m2unet's and would be replaced",
                found=", ".join(foreign),
                mend="choose another --out, or give these files other names",
            )

    def update(self) -> None:
        """Write tables and page anew if the cases changed. What goes wrong is logged and ends nothing."""
        try:
            self.collect()
        except (M2UNetError, OSError) as error:
            logger.warning("the table of all cases cannot be written: %s", error)
        except Exception:
            logger.exception("the table of all cases cannot be written; `m2unet collect` makes it anew")

    def collect(self) -> Collected:
        """Write tables and page from the cases' folders, again if the folder changed meanwhile.

        Whoever writes last has looked afterwards, so that several processes leave a table of all cases.

        Raises:
            OutputError: if a file cannot be written.
            ConfigError: as :meth:`check`.
        """
        files = [self.out / name for name in (TABLE_FILE, SOURCES_FILE, *([PAGE_FILE] if self.page else []))]
        seen = self._look()
        if not self._cases(seen)[0]:
            return Collected(())
        for _ in range(_ATTEMPTS):
            cases, sources = self._cases(seen)
            if seen == self._written and all(file.is_file() for file in files):
                break
            if self._written is None:
                self.check()
            page = self.page or (self.out / PAGE_FILE).is_file()
            write_cohort_page(self.out, cases, page=page)
            write_text(self.out / SOURCES_FILE, csv_text(SOURCE_COLUMNS, sources))
            self._written, seen = seen, self._look()
        sweep(self.out)
        sweep(self.out / SOURCES)
        return Collected(tuple(self._cases(seen)[0]), tuple(files))

    def _look(self) -> dict[str, _Stamps]:
        """The folders of cases, and whether they changed, by name."""
        found: dict[str, _Stamps] = {}
        with suppress(FileNotFoundError):
            for entry in os.scandir(self.out):
                if entry.name.startswith(".") or entry.name in (ASSETS, SOURCES) or not entry.is_dir():
                    continue
                result, error = (_stamp(Path(entry.path) / name) for name in (RESULT_FILE, ERROR_FILE))
                if result is not None or error is not None:
                    found[entry.name] = (result, error, _stamp(CaseFolder(self.out, entry.name).source_file))
        return dict(sorted(found.items(), key=lambda item: (item[0].casefold(), item[0])))

    def _cases(self, seen: dict[str, _Stamps]) -> tuple[list[CohortCase], list[dict[str, str]]]:
        cases: list[CohortCase] = []
        sources: list[dict[str, str]] = []
        for name, stamps in seen.items():
            known = self._read.get(name)
            if known is None or known[0] != stamps:
                known = self._read[name] = (stamps, *self._load(name))
            if known[1] is not None:
                cases.append(known[1])
                sources.append(known[2])
        return cases, sources

    def _load(self, name: str) -> tuple[CohortCase | None, dict[str, str]]:
        source = SourceRecord.read(CaseFolder(self.out, name).source_file)
        extra = {} if source is None else dict(source.columns)
        case = _case(self.out / name, extra, mine=source is not None)
        row = dict.fromkeys(SOURCE_COLUMNS, "") if source is None else source.row()
        if case is not None:
            row |= {"case": name, "scan_digest": case.digest or ""}
        return case, row


def _case(folder: Path, extra: dict[str, str], *, mine: bool) -> CohortCase | None:
    """One row, None for a folder that is no case."""
    result = read_json_file(folder / RESULT_FILE)
    if result is not None:
        ours = str(result.get("schema_version") or "").startswith("m2unet.result/")
        try:
            document = ResultDocument.model_validate(result, strict=False)
        except ValidationError:
            said = "its result.json is damaged or of another version; predict it again"
            return CohortCase(folder.name, None, said, extra=extra) if ours or mine else None
        return CohortCase(folder.name, document, digest=document.scan.digest, extra=extra)
    error = read_json_file(folder / ERROR_FILE)
    if error is None or (error.get("schema") != ERROR_SCHEMA and not mine):
        return None
    digest = error.get("scan_digest")
    return CohortCase(
        folder.name, None, str(error.get("error") or "its error.json is damaged"), digest=digest, extra=extra
    )


def collect_results(out: Path) -> Collected:
    """Make ``cohort.csv``, ``cohort.html`` and ``sources.csv`` anew from the results in a folder.

    Raises:
        ConfigError: there are none, or files of somebody else would be replaced.
        OutputError: the folder cannot be written.
    """
    found = CohortFolder(out).collect() if out.is_dir() else None
    if found is None or not found.cases:
        raise ConfigError(
            "There are no results here",
            found=out,
            expected="a folder of cases with result.json or error.json, as `m2unet predict --out` makes it",
        )
    return found


def _stamp(path: Path) -> _Stamp:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _is_own(path: Path, sign: re.Pattern[str]) -> bool:
    """Whether a file is not there, is empty, or is one of this package."""
    if path.is_dir():
        return False
    text = _text(path)
    return not text or sign.match(text) is not None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
