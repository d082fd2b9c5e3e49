"""Read one scan: NIfTI, MHA/MHD, NRRD or a folder of DICOM, with everything that is to be said about its quality."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from m2unet.ct.findings import Finding, QualityError, accepted, check_accept, finding
from m2unet.ct.lungs import Lungs
from m2unet.ct.quality import check_anatomy, check_geometry, check_values
from m2unet.ct.raw import RawScan
from m2unet.ct.sniff import not_fetched, sniff
from m2unet.ct.volume import Volume, from_source

logger = logging.getLogger(__name__)

FLOOR_HU = -1024
"""Everything below is padding beyond the field of view, whatever value a scanner gives it, and is raised to this."""

NOTED = 0.02
"""Fewer voxels than this share are the noise of air."""


@dataclass(frozen=True)
class Loaded:
    """What reading came to.

    Attributes:
        volume: None if the scan could not be read at all.
        findings: everything noticed.
        lungs: the coarse lungs, None if not found or not looked for.
    """

    volume: Volume | None
    findings: tuple[Finding, ...]
    lungs: Lungs | None = None


def read_scan(path: str | Path, *, accept: Collection[str] = (), series: str | None = None) -> Volume:
    """Read a scan into the package's orientation.

    Args:
        path: a NIfTI, MHA/MHD or NRRD file, a folder with a DICOM series (nested folders are searched, one of several
            series is chosen, see docs/reading.md), or a multi-frame DICOM file.
        accept: codes of errors to live with as warnings, of :data:`m2unet.ct.findings.ACCEPTABLE`, e.g.
            ``lungs-absent``.
        series: SeriesInstanceUID of the DICOM series to read, or the first six or more digits of its digest; chosen by
            rule if None.

    Returns:
        The volume; its ``findings`` hold warnings and notes.

    Raises:
        QualityError: if there is no such scan or it cannot be used; it carries all findings.
        MissingExtraError: compressed DICOM whose decoder is not installed.
        ConfigError: an error that cannot be accepted.
    """
    loaded = load(Path(path), accept, series=series)
    findings = loaded.findings
    if loaded.volume is None or any(found.level == "error" for found in findings):
        raise QualityError(findings)
    for found in findings:
        if found.level == "warning":
            logger.debug("%s: %s", found.code, found.found)
    return replace(loaded.volume, findings=findings)


def load(path: Path, accept: Collection[str] = (), *, series: str | None = None) -> Loaded:
    """Read a scan and everything that is to be said about it, without judging.

    Args:
        path, series: as for :func:`read_scan`.
        accept: codes of errors that count as warnings.

    Raises:
        MissingExtraError: compressed DICOM whose decoder is not installed.
        ConfigError: an error that cannot be accepted.
    """
    accept = check_accept(accept)
    try:
        raw = read_raw(path, series=series)
    except QualityError as error:
        return Loaded(None, error.findings)
    except OSError as error:
        return Loaded(None, (finding("unreadable", error.strerror or "it cannot be opened"),))
    findings = [*raw.findings, *check_values(raw)]
    if any(found.code == "not-finite" for found in findings):
        return Loaded(None, tuple(findings))
    volume, padded = _volume(raw, str(path))
    del raw  # its array may be another copy
    if padded > NOTED * volume.array.size:
        findings.append(finding("padding", f"{padded} of {volume.array.size} voxels"))
    findings = list(accepted((*findings, *check_geometry(volume)), accept))
    if any(found.level == "error" for found in findings):
        return Loaded(volume, tuple(findings))
    anatomy = check_anatomy(volume)
    return Loaded(volume, (*findings, *accepted(anatomy.findings, accept)), anatomy.lungs)


def read_raw(path: Path, *, series: str | None = None) -> RawScan:
    """Read values and geometry as stored, with every guard against damaged files but no judgement of the values.

    Serves masks, too: what is truncated, too large or reaches elsewhere is refused just so.

    Args:
        path, series: as for :func:`read_scan`.

    Raises:
        QualityError: if it cannot be read.
        MissingExtraError: compressed DICOM whose decoder is not installed.
        OSError: if a file cannot be opened.
    """
    from m2unet.ct.dicom import read_dicom
    from m2unet.ct.itk_files import read_itk
    from m2unet.ct.nifti import read_nifti

    absent = not_fetched(path)
    if absent is not None:
        raise QualityError([finding("not-fetched", f"it is {absent}")])
    if not path.exists():
        raise QualityError([finding("not-found", "nothing at this path")])
    if path.is_dir():
        return read_dicom(path, series=series)
    kind, name = sniff(path)
    if kind in ("other", "picture") and path.name.lower().endswith((".img", ".img.gz")):
        kind = "nifti"  # the voxels of a pair have no magic
    if series is not None and kind != "dicom":
        raise QualityError([finding("series-not-found", f"the file is {name}, which has no DICOM series")])
    if kind == "nifti":
        return read_nifti(path)
    if kind in ("mha", "nrrd"):
        return read_itk(path, kind)
    if kind == "dicom":
        return read_dicom(path, series=series)
    raise QualityError([finding("picture" if kind == "picture" else "unknown-file", f"the file is {name}")])


def _volume(raw: RawScan, path: str) -> tuple[Volume, int]:
    array, padded = raw.array, 0
    if not np.issubdtype(array.dtype, np.unsignedinteger) and array.min() < FLOOR_HU:
        padded = sum(int(np.count_nonzero(plane < FLOOR_HU)) for plane in array)
        np.maximum(array, FLOOR_HU, out=array)
    volume = from_source(
        array, raw.spacing_mm, raw.origin_mm, raw.direction, format=raw.format, path=path, header=raw.header
    )
    return volume, padded
