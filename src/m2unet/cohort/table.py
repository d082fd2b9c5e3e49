"""A CSV file as records, whatever spreadsheet wrote it: comma, semicolon or tab; UTF-8, or UTF-16 with its mark."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from m2unet.errors import ManifestError


def read_records(path: Path, kind: str = "manifest") -> list[tuple[int, list[str]]]:
    """The non-blank records of a CSV file, numbered as a spreadsheet numbers its rows; the first is the header.

    Args:
        path: the file.
        kind: what it is, for the messages.

    Raises:
        ManifestError: if the file is absent, not text, not CSV, or empty.
    """
    text = _text(path, kind)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ManifestError(f"The {kind} {path.name} is not valid CSV", [str(error)], mend="export it anew") from None
    numbered = [(n, cells) for n, cells in enumerate(records, 1) if any(cell.strip() for cell in cells)]
    if not numbered:
        raise ManifestError(f"The {kind} {path.name} is empty", ["no header"], mend="write a header and one row a scan")
    return numbered


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
