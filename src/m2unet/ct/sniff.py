"""What kind of file something is, by its first bytes, whatever its name says."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Literal

FileKind = Literal["nifti", "mha", "nrrd", "dicom", "picture", "other"]

HEAD = 1024

_PICTURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"\x00\x00\x00\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}
_OTHERS = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "a gzip archive of something else than NIfTI",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
}


def sniff(path: Path) -> tuple[FileKind, str]:
    """The kind of a file and its name in words.

    Args:
        path: an existing file.

    Raises:
        OSError: if it cannot be opened.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    if head[:2] == b"\x1f\x8b":
        inner = _inflated(path)
        head = inner if _is_nifti(inner) or inner[:4] == b"NRRD" else head
    text = b"ElementDataFile" in head or head.lstrip()[:10] == b"ObjectType" or head[:5] == b"NDims"
    kinds: list[tuple[bool, FileKind, str]] = [
        (_is_nifti(head), "nifti", "NIfTI"),
        (head[:4] == b"NRRD", "nrrd", "NRRD"),
        (head[128:132] == b"DICM" or _bare_dicom(head), "dicom", "DICOM"),
        (text, "mha", "MetaImage"),
        *[(head.startswith(magic), "picture", name) for magic, name in _PICTURES.items()],
        *[(head.startswith(magic), "other", name) for magic, name in _OTHERS.items()],
        (not head, "other", "an empty file"),
    ]
    return next(((kind, name) for fits, kind, name in kinds if fits), ("other", "an unknown format"))


def _inflated(path: Path) -> bytes:
    try:
        with gzip.open(path) as stream:
            return stream.read(HEAD)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_nifti(head: bytes) -> bool:
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:12] in (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")


def _bare_dicom(head: bytes) -> bool:
    """Old exports lack preamble and magic: they begin with group 0008, little endian, in ascending order."""
    return head[:2] == b"\x08\x00" and head[2:4] in (b"\x00\x00", b"\x01\x00", b"\x05\x00", b"\x08\x00", b"\x16\x00")
