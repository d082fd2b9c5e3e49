"""Find the DICOM slices in a folder tree, and count what should be a slice and cannot be read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from m2unet.ct.dicom_header import Slice, read_header, slices_of
from m2unet.ct.findings import Finding, QualityError, finding
from m2unet.ct.sniff import sniff

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_FILES = 20_000
"""More files than this are no single scan: most likely the root of an archive was given."""

XRAY_MODALITIES = frozenset({"CR", "DX", "MG", "RF", "XA", "PX", "IO", "RG"})

_DICOM_NAME = re.compile(r"\.(dcm|dicom|ima)\b", re.IGNORECASE)
_DIGITS = re.compile(r"[\d._-]+")
_NO_SLICE = re.compile(
    r"\.(txt|md|pdf|docx?|xlsx?|csv|tsv|json|xml|ya?ml|html?|log|ini|inf|exe|jpe?g|png|gif|bmp|tiff?|mp4|zip|nii|nii\.gz"
    r"|mha|mhd|nrrd|nhdr|raw|zraw)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    Attributes:
        slices: of every DICOM file with voxels, in the order of their paths.
        files: all files that were looked at.
        others: kinds of the files that are not DICOM, in words, with their numbers.
        damaged: files that should be slices (by their content or name) and cannot be parsed.
        not_fetched: links to files that are not there, and placeholders of git-annex or Git LFS.
        closed: files and folders that the system does not let be read.
    """

    slices: tuple[Slice, ...]
    files: int
    others: Counter[str]
    damaged: int
    not_fetched: int = 0
    closed: int = 0

    def faults(self) -> list[Finding]:
        """Errors that count the files which may be missing slices."""
        found = []
        if self.not_fetched:
            said = f"{self.not_fetched} of {self.files} files are links or placeholders whose content is not here"
            found.append(finding("not-fetched", said))
        if self.damaged:
            said = f"{self.damaged} of {self.files} files are DICOM slices, by content or name, that cannot be parsed"
            found.append(finding("unreadable", said))
        if self.closed:
            found.append(finding("unreadable", f"{self.closed} file(s) or folder(s) that may not be opened"))
        return found


@dataclass
class _Sorted:
    """Files as they are looked at."""

    slices: list[Slice] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unknown: list[tuple[str, str]] = field(default_factory=list)  # name and kind of what may be a damaged slice
    damaged: int = 0
    not_fetched: int = 0
    closed: int = 0

    def add(self, file: Path) -> None:
        try:
            kind, name = sniff(file) if file.is_file() else ("pointer", "a broken link")
        except OSError:
            self.closed += 1
            return
        if kind == "pointer":
            if _NO_SLICE.search(file.name):
                self.others["other: a document that is not here"] += 1
            else:
                self.not_fetched += 1
        elif kind == "other":
            self.unknown.append((file.name, name))
        elif kind != "dicom":
            self.others[f"{kind}: {name}"] += 1
        else:
            self._add_dicom(file)

    def _add_dicom(self, file: Path) -> None:
        header = read_header(file)
        if header is None or (not _has_voxels(header) and _should_have_voxels(header)):
            self.damaged += 1
        elif _has_voxels(header):
            self.slices.extend(slices_of(file, header))
        else:
            self.others["other: DICOM without voxels"] += 1

    def contents(self, files: int) -> Contents:
        """All of it; what has the name of a slice and no known content is a damaged one."""
        shapes = {_shape(item.path.name) for item in self.slices}
        for name, kind in self.unknown:
            if _DICOM_NAME.search(name) or _shape(name) in shapes:
                self.damaged += 1
            else:
                self.others[f"other: {kind}"] += 1
        return Contents(tuple(self.slices), files, self.others, self.damaged, self.not_fetched, self.closed)


def _shape(name: str) -> str:
    """A file name without what differs between the slices of a series."""
    return _DIGITS.sub("#", name.lower())


def _has_voxels(header: Dataset) -> bool:
    return bool(header.get("Rows") and header.get("Columns"))


def _should_have_voxels(header: Dataset) -> bool:
    """Whether a header without an image's size is that of an image all the same, or ends before it says what it is."""
    from pydicom.uid import UID

    meta = getattr(header, "file_meta", None)
    kind = header.get("SOPClassUID") or (meta.get("MediaStorageSOPClassUID") if meta is not None else None)
    if not kind:
        return not header.get("Modality")
    return "Image Storage" in UID(str(kind)).name


def read_contents(path: Path) -> Contents:
    """Read the headers of every file under a folder, or of one file.

    Links to files and folders are followed; a folder that was already looked at is not entered again.

    Raises:
        QualityError: more files than a scan has.
    """
    found = _Sorted()
    number = 0
    for number, file in enumerate(_files(path, found), 1):
        if number > MAX_FILES:
            raise QualityError([finding("too-many-files", f"more than {MAX_FILES} files")])
        found.add(file)
    return found.contents(number)


def _files(path: Path, found: _Sorted) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return

    def count(_: OSError) -> None:
        found.closed += 1

    # ancestors count as seen: a link to one of them is a cycle, not a folder of this scan
    seen = {_identity(folder) for folder in path.resolve().parents} | {_identity(path)}
    for folder, folders, names in os.walk(path, onerror=count, followlinks=True):
        entered = []
        for name in sorted(folders):
            place = _identity(Path(folder) / name)
            if not name.startswith(".") and place not in seen:
                seen.add(place)
                entered.append(name)
        folders[:] = entered
        for name in sorted(names):
            file = Path(folder) / name
            if name.startswith(".") or name.upper() == "DICOMDIR":
                continue
            if file.is_file() or file.is_symlink():
                yield file


def _identity(folder: Path) -> tuple[int, int] | Path:
    """What a folder is, by whatever path it is reached."""
    state = folder.stat()
    return (state.st_dev, state.st_ino) if state.st_ino else folder.resolve()


def nothing_found(contents: Contents) -> list[Finding]:
    """Say why a folder without DICOM slices holds no scan."""
    faults = contents.faults()
    if faults:
        return faults
    counts: Counter[str] = Counter()
    for said, count in contents.others.items():
        counts[said.partition(": ")[0]] += count
    if counts["picture"]:
        return [finding("picture", f"{counts['picture']} picture(s) ({_said(contents.others, 'picture')})")]
    volumes = counts["nifti"] + counts["mha"] + counts["nrrd"]
    if volumes:
        found = f"no DICOM series, but {volumes} volume file(s): give one of them by its name"
        return [finding("empty-folder", found)]
    if counts["other"]:
        found = f"no scan among {contents.files} file(s) ({_said(contents.others, 'other')})"
        return [finding("empty-folder", found)]
    return [finding("empty-folder", "no files")]


def _said(others: Counter[str], kind: str) -> str:
    names = [name.partition(": ")[2] for name, _ in others.most_common() if name.startswith(kind)]
    return ", ".join(names[:3])
