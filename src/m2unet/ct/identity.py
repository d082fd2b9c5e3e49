"""What names a scan without saying whose it is: digests of its identifiers or of its content."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from m2unet.ct.dicom_files import MAX_FILES
from m2unet.ct.findings import QualityError
from m2unet.ct.patient import PatientWords
from m2unet.ct.patient_headers import dicom_words, key_value_words, nifti_words
from m2unet.ct.sniff import sniff
from m2unet.ct.volume import Volume

SHOWN = 8
"""Digits of a digest that names and pages show."""

_CHUNK = 1 << 20
_HEADERS = 1 << 16
_ENOUGH = 2000
"""Headers to look for a patient in, of a folder that cannot be read as a scan."""

_OWN_DICOM = (".seg.dcm", ".sr.dcm")
_PAIRS = ((".hdr", ".img"), (".hdr.gz", ".img.gz"))
_DETACHED = re.compile(rb"^\s*(?:ElementDataFile\s*=|data ?file\s*:)\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class ScanIdentity:
    """Which scan something is of.

    Attributes:
        digest: 64 hexadecimal digits: of the DICOM series' UID, of its images' UIDs where the series has none, of the
            content of any other file; of the absolute path where the scan cannot be read so far.
        basis: which of these.
        images: SHA-256 over the UIDs of a DICOM series' images; the digest itself for other files. Two series that
            share a UID by mistake differ in it.
        files: what the scan is read from.
        fingerprint: SHA-256 over names, sizes and modification times of those files: whether they are as they were.
        study_uid, series_uid: for the user's own disk alone.
        patient: what the header says of the patient, for comparison alone.
    """

    digest: str
    basis: Literal["series", "images", "content", "path"]
    images: str
    files: tuple[Path, ...] = ()
    fingerprint: str = ""
    study_uid: str | None = None
    series_uid: str | None = None
    patient: PatientWords = field(default_factory=PatientWords)

    @property
    def short(self) -> str:
        """The digits that names and pages show."""
        return self.digest[:SHOWN]


def uid_digest(uid: str) -> str:
    """SHA-256 of a DICOM UID, which stands for it where the UID itself must not appear.

    Args:
        uid: as the header has it; surrounding blanks and the padding zero byte do not count.

    Returns:
        64 hexadecimal digits; the first eight are what is shown.
    """
    return hashlib.sha256(uid.strip(" \0").encode()).hexdigest()


def identify_scan(path: Path, *, series: str | None = None) -> ScanIdentity:
    """Which scan lies at a path, from headers (DICOM) or content (any other file); never raises for a bad scan.

    Neither the path nor the time of the call nor other scans have a say, except where nothing can be read.

    Args:
        path: a file, or a folder with a DICOM series.
        series: the DICOM series asked for, as for :func:`m2unet.ct.read.read_scan`.
    """
    try:
        kind = "dicom" if path.is_dir() else sniff(path)[0]
        if kind == "dicom":
            return _identify_dicom(path, series)
        files = with_data(path)
        digest = _content_digest(files)
    except OSError:
        return _identify_path(path)
    except Exception:  # a fault of a reader shows, with its traceback, when the scan is read
        return _identify_path(path)
    words = key_value_words(files[0]) if kind in ("mha", "nrrd") else nifti_words(files[0])
    return ScanIdentity(digest, "content", digest, files, source_fingerprint(files), patient=words)


def _identify_dicom(path: Path, series: str | None) -> ScanIdentity:
    from m2unet.ct.dicom import chosen_series

    try:
        slices = chosen_series(path, series=series).slices
    except QualityError:
        return _identify_path(path)
    files = tuple(dict.fromkeys(item.path for item in slices))
    header = slices[0].header
    uids = sorted(f"{item.header.get('SOPInstanceUID') or ''}\0{item.frame}" for item in slices)
    images = hashlib.sha256("\n".join(uids).encode()).hexdigest()
    series_uid, study_uid = (str(header.get(f"{kind}InstanceUID") or "").strip() for kind in ("Series", "Study"))
    return ScanIdentity(
        digest=uid_digest(series_uid) if series_uid else images,
        basis="series" if series_uid else "images",
        images=images,
        files=files,
        fingerprint=source_fingerprint(files),
        study_uid=study_uid or None,
        series_uid=series_uid or None,
        patient=dicom_words([files[0]]),
    )


def _identify_path(path: Path) -> ScanIdentity:
    """By the path; what the headers of its DICOM files say of the patient is looked for all the same."""
    digest = path_digest(path)
    try:
        words = dicom_words(scan_files(path)[:_ENOUGH])
    except OSError:
        words = PatientWords()
    return ScanIdentity(digest, "path", digest, patient=words)


def volume_digest(volume: Volume) -> str | None:
    """Digest of the scan that a volume was read from; None for one that was made in memory."""
    uid = str(volume.source.header.get("series_instance_uid") or "").strip()
    if uid:
        return uid_digest(uid)
    return None if volume.source.path is None else identify_scan(Path(volume.source.path)).digest


def path_digest(path: Path) -> str:
    """SHA-256 of an absolute path: names what cannot be read."""
    return hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()  # noqa: PTH100 - links as they are given


def source_fingerprint(files: Iterable[Path]) -> str:
    """SHA-256 over names, sizes and modification times of a scan's files: whether it is as it was.

    Raises:
        OSError: if one does not exist.
    """
    digest = hashlib.sha256()
    for file in sorted(files):
        stat = file.stat()
        digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def all_files(path: Path) -> list[Path]:
    """Every file under a folder, or a file with its data file: what a mask is read from."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else list(with_data(path))


def scan_files(path: Path) -> list[Path]:
    """Files that a scan given as a folder can be made of: the DICOM files under it, but those of this package.

    Results written inside the study's folder are none of the study.

    Args:
        path: a folder, or a file, which is given back with its data file.
    """
    if not path.is_dir():
        return list(with_data(path))
    found: list[Path] = []
    for looked_at, file in enumerate(_walk(path)):
        if looked_at >= MAX_FILES:
            break
        if not file.name.lower().endswith(_OWN_DICOM) and sniff(file)[0] == "dicom":
            found.append(file)
    return sorted(found)


def _walk(folder: Path) -> Iterator[Path]:
    """Files under a folder in order, linked folders too, each folder once; hidden ones are passed over."""
    seen = {folder.resolve()}
    for place, folders, names in os.walk(folder, followlinks=True):
        entered = []
        for name in sorted(folders):
            target = (Path(place) / name).resolve()
            if not name.startswith(".") and target not in seen:
                seen.add(target)
                entered.append(name)
        folders[:] = entered
        yield from (
            file for name in sorted(names) if not name.startswith(".") and (file := Path(place) / name).is_file()
        )


def with_data(path: Path) -> tuple[Path, ...]:
    """A file with the one that holds its voxels, where that is another: header first.

    Pairs (``.hdr`` and ``.img``) and detached headers (``.mhd``, ``.nhdr``) name a file beside them.
    """
    name = path.name.lower()
    for endings in _PAIRS:
        for ending, other in (endings, endings[::-1]):
            partner = path.with_name(path.name[: -len(ending)] + other)
            if name.endswith(ending) and partner.is_file():
                return (path, partner) if ending == endings[0] else (partner, path)
    if not path.is_file() or sniff(path)[0] not in ("mha", "nrrd"):
        return (path,)
    with path.open("rb") as stream:
        named = _DETACHED.search(stream.read(_HEADERS))
    target = "LOCAL" if named is None else named[1].decode("utf-8", "replace")
    data = path.parent / target
    return (path,) if target.upper() == "LOCAL" or not data.is_file() else (path, data)


def _content_digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
