"""A CSV file as records, whatever spreadsheet wrote it: comma, semicolon or tab; UTF-8, or UTF-16 with its mark.

Excel's ``sep=;`` line is obeyed, and the blank rows and columns that it leaves around a table are dropped.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from m2unet.errors import ManifestError

_SEP_LINE = re.compile(
    r'\s*(?:"sep=(?P<quoted>[^\r\n])"|sep=(?P<plain>[^\r\n]))[ ,;\t]*(?:\r\n|\r|\n|$)', re.IGNORECASE
)


def read_records(path: Path, kind: str = "manifest") -> list[tuple[int, list[str]]]:
    """The non-blank records of a CSV file, numbered as a spreadsheet numbers its rows; the first is the header.

    Columns without a name and without any value are left out.

    Args:
        path: the file.
        kind: what it is, for the messages.

    Raises:
        ManifestError: if the file is absent, not text, not CSV, or empty.
    """
    text = _text(path, kind)
    text, delimiter = _delimiter(text)
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ManifestError(f"The {kind} {path.name} is not valid CSV", [str(error)], mend="export it anew") from None
    numbered = [(n, cells) for n, cells in enumerate(records, 1) if any(cell.strip() for cell in cells)]
    if not numbered:
        raise ManifestError(f"The {kind} {path.name} is empty", ["no header"], mend="write a header and one row a scan")
    return _without_blank_columns(numbered)


def _delimiter(text: str) -> tuple[str, str]:
    """The text without a ``sep=`` line, and the separator that it or else the first row tells."""
    named = _SEP_LINE.match(text)
    if named:
        return text[named.end() :], named["quoted"] or named["plain"]
    first = next((line for line in text.splitlines() if line.strip()), "")
    return text, max(",;\t", key=first.count)


def _without_blank_columns(records: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    header = records[0][1]
    blank = {
        at
        for at, name in enumerate(header)
        if not name.strip() and not any(at < len(cells) and cells[at].strip() for _, cells in records)
    }
    if not blank:
        return records
    return [(n, [cell for at, cell in enumerate(cells) if at not in blank]) for n, cells in records]


def _text(path: Path, kind: str) -> str:
    if path.is_dir() or not path.exists():
        fault = "it is a folder" if path.is_dir() else "no such file"
        raise ManifestError(f"The {kind} {path} cannot be read", [fault], mend="give the path of a CSV file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"The {kind} {path.name} cannot be read", [str(error.strerror)]) from error
    if data.startswith(b"PK\x03\x04"):
        raise ManifestError(f"The {kind} {path.name} is a spreadsheet", ["an Excel file"], mend="export it as CSV")
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        fault = f"row {line}: bytes that are not {encoding.removesuffix('-sig').upper()}"
        raise ManifestError(f"The {kind} {path.name} cannot be decoded", [fault], mend="save it as UTF-8") from None
    if "\0" in text:
        raise ManifestError(f"The {kind} {path.name} is not text", ["zero bytes"], mend="save it as UTF-8 CSV")
    return text
