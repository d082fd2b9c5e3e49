"""What kind of file something is, by its first bytes, whatever its name says."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Literal

FileKind = Literal["nifti", "mha", "nrrd", "dicom", "picture", "pointer", "other"]

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
        (is_pointer(head), "pointer", "a placeholder of git-annex or Git LFS"),
        (_is_nifti(head), "nifti", "NIfTI"),
        (is_analyze(head), "nifti", "Analyze"),
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


def is_analyze(head: bytes) -> bool:
    """Whether a header is that of Analyze 7.5: laid out as NIfTI-1's and without its magic."""
    if len(head) < 348 or _is_nifti(head):
        return False
    for order in "<>":
        size, axes = struct.unpack_from(order + "i", head)[0], struct.unpack_from(order + "8h", head, 40)
        if size == 348 and 3 <= axes[0] <= 7 and all(side > 0 for side in axes[1:4]):
            return True
    return False


def is_pointer(head: bytes) -> bool:
    """Whether a file is the text that git-annex or Git LFS leaves in place of a file that was not fetched."""
    line = head[:200].split(b"\n")[0]
    return head.startswith(b"version https://git-lfs.github.com/spec/") or (
        b"annex/objects/" in line and line.isascii() and b"\0" not in line
    )


def _bare_dicom(head: bytes) -> bool:
    """Old exports lack preamble and magic: they begin with group 0002 or 0008, little endian, in ascending order."""
    group, place, kind = head[:2], head[2:4], head[4:6]
    if group == b"\x02\x00":
        return place in (b"\x00\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x10\x00") and kind in (
            b"UL",
            b"OB",
            b"UI",
        )
    return group == b"\x08\x00" and place in (b"\x00\x00", b"\x01\x00", b"\x05\x00", b"\x08\x00", b"\x16\x00")
