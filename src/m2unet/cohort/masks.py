"""Lobe masks: read, laid on their image's grid, recognised, checked and recoded; the one way every command reads them.

Where a file names its segments (3D Slicer's ``.seg.nrrd``, DICOM SEG, TotalSegmentator's folder or its label map with
names), the names decide. Otherwise the values do, together with where they lie. What is no mask of lobes is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY, CODE_MAPS, LOBE_BY_CODE, LOBES, UNDECIDED, CodeSystem
from m2unet.cohort.label_places import LabelPlaces, Place, measure_labels
from m2unet.cohort.lobe_codes import meaning_of, read_in, recode, recode_by, recognised
from m2unet.cohort.lobe_refusal import contradicted, refused
from m2unet.cohort.lobe_rules import contradictions, oddities, weighty
from m2unet.cohort.mask_files.dicom_segments import read_dicom_segments, segmentation_file
from m2unet.cohort.mask_files.grid import check_grid
from m2unet.cohort.mask_files.nifti_labels import read_label_names
from m2unet.cohort.mask_files.nrrd_segments import read_nrrd_segments
from m2unet.cohort.mask_files.organ_folder import lobe_files, merge_files, read_organ_folder
from m2unet.cohort.mask_files.segments import LabelFile, codes_of_segments
from m2unet.cohort.mask_files.values import whole_numbers
from m2unet.ct.findings import Finding, QualityError, finding
from m2unet.ct.read import read_raw
from m2unet.ct.sniff import sniff
from m2unet.ct.volume import Volume, from_source
from m2unet.errors import ScanError

logger = logging.getLogger(__name__)

CHECKS = 1
"""Version of what masks are read and refused by; kept results made with another are made again."""

JUDGED_ML = 5.0
"""Lobes of less than this together are too small to contradict a stated convention by their places."""

RecognisedBy = Literal["names", "values and places", "as stated"]


class NoLobesError(ScanError):
    """A mask without any lobe: empty, or of other structures alone."""


@dataclass(frozen=True)
class LobeMask:
    """A lobe mask that was recognised and checked.

    Attributes:
        array: ``[z, y, x]`` codes 0-6 of :mod:`m2unet.anatomy` on its image's grid; 255 where asked for.
        codes: the convention of the file, or ``names``.
        recognised_by: how it is known.
        labels: the lobe, or ``airway``, of each label of the file, by its value or name.
        findings: warnings, e.g. of a missing lobe.
    """

    array: NDArray[np.uint8]
    codes: str
    recognised_by: RecognisedBy
    labels: Mapping[str, str]
    findings: tuple[Finding, ...] = field(default=())

    def summary(self) -> str:
        """Whose codes they are, in one line."""
        shown = ", ".join(f"{label} = {lobe}" for label, lobe in self.labels.items())
        if self.recognised_by == "names":
            return f"lobes by the names in the file: {shown}"
        return f"codes of {self.codes}, {_HOW[self.recognised_by]}: {shown}"


_HOW = {"values and places": "recognised by values and places", "as stated": "as stated, and not against their places"}


def read_lobes(
    path: str | Path,
    volume: Volume,
    codes: CodeSystem = "auto",
    *,
    undecided: bool = False,
    accept: Collection[str] = (),
) -> LobeMask:
    """Read a lobe mask of any tool onto the canonical grid of its image, or refuse it.

    The file may order and direct its axes differently from the image, as long as both cover the same physical grid; a
    file with named segments may cover a part of it.

    Args:
        path: NIfTI, MHA/MHD or NRRD label map; ``.seg.nrrd``; DICOM SEG, the file or its folder; a folder with one file
            a lobe.
        volume: the image it belongs to.
        codes: whose codes the file uses, one of :data:`m2unet.anatomy.CODE_SYSTEMS`; ``auto`` recognises them. With
            TotalSegmentator's, other organs become background; LUNA16's second byte marks the airway.
        undecided: let 255 pass beside this package's codes: pixels whose lobe is not known, left out of training.
        accept: codes of faults to live with: ``mask-sides``, ``mask-order``, ``mask-volume``, ``mask-missing``.

    Raises:
        ScanError: unreadable file, another grid, or no mask of lobes: labels with their volumes and sides, what they
            look like, and what would be accepted.
    """
    path = Path(path)
    accepted = {code.removeprefix("mask-") for code in accept}
    file = read_labels(path, volume, lacking="missing" in accepted)
    left_open = file.array == UNDECIDED if undecided and file.codes is None and codes in ("auto", "m2unet") else None
    if left_open is not None and left_open.any():
        file = LabelFile(np.where(left_open, np.int16(0), file.array), None, file.names, file.findings)
    else:
        left_open = None
    labels = measure_labels(file.array, volume)
    if not labels.places:
        raise NoLobesError(f"The lobe mask {path.name} is empty", expected="the lobes of a scan", mend=_EMPTY)
    if file.codes is not None:
        found = _by_names(file, labels, path.name, codes, accepted)
    elif codes == "auto" and left_open is None:
        found = _by_places(file, labels, path.name, accepted)
    else:
        found = _as_stated(file, labels, path.name, "m2unet" if codes == "auto" else codes, accepted)
    if left_open is not None:
        found.array[left_open] = UNDECIDED
        return LobeMask(found.array, found.codes, found.recognised_by, found.labels, file.findings)
    return found


_EMPTY = "give the mask of this scan, or leave it out"


def read_lobe_mask(
    path: str | Path,
    volume: Volume,
    codes: CodeSystem = "auto",
    *,
    undecided: bool = False,
    accept: Collection[str] = (),
) -> NDArray[np.uint8]:
    """The array of :func:`read_lobes` alone: ``[z, y, x]`` codes 0-6 on the volume's grid.

    Raises:
        ScanError: as :func:`read_lobes`.
    """
    return read_lobes(path, volume, codes, undecided=undecided, accept=accept).array


def read_lobe_files(
    parts: Sequence[tuple[Path, int]], volume: Volume, name: str, *, accept: Collection[str] = ()
) -> LobeMask:
    """Read lobes of one binary file each.

    Args:
        parts: each file with our code of its lobe.
        volume: the image they belong to.
        name: of the whole, for messages.
        accept: as for :func:`read_lobes`.

    Raises:
        NoLobesError: all are empty.
        ScanError: a file is no binary mask on the image's grid, or the lobes do not lie where lobes do.
    """
    file = merge_files(parts, volume, name)
    labels = measure_labels(file.array, volume)
    return _by_names(file, labels, name, "auto", {code.removeprefix("mask-") for code in accept})


def read_mask(path: str | Path, volume: Volume) -> NDArray[np.int16]:
    """Read a label map of any kind onto the canonical grid of its image, its values as they are and unchecked.

    Args:
        path: NIfTI, MHA/MHD or NRRD; axes as for :func:`read_lobes`.
        volume: the image it belongs to.

    Raises:
        ScanError: unreadable file, another grid, fractions.
    """
    path = Path(path)
    try:
        raw = read_raw(path)
    except QualityError as error:
        raise ScanError(f"The lobe mask {path.name} cannot be read", found=error.found, mend=error.mend) from None
    except OSError as error:
        raise ScanError(f"The lobe mask {path.name} cannot be read", found=error.strerror) from None
    mask = from_source(whole_numbers(raw.array, path.name), raw.spacing_mm, raw.origin_mm, raw.direction)
    check_grid(mask, volume, path.name)
    return mask.array


def log_findings(scan_id: str, mask: LobeMask) -> None:
    """Log the warnings of a scan's lobe mask, where no result holds them."""
    for one in mask.findings:
        if one.level == "warning":
            logger.warning("%s: %s: %s", scan_id, one.code, one.found)


def is_mask_folder(path: Path) -> bool:
    """Whether a folder holds lobes: one file a lobe, or DICOM segmentations; reading says whether they can be used."""
    if not path.is_dir():
        return False
    try:
        return bool(lobe_files(path)) or segmentation_file(path) is not None
    except ScanError:
        return True


# --- the file --------------------------------------------------------------------------------------------------------


def read_labels(path: Path, volume: Volume, *, strict: bool = False, lacking: bool = False) -> LabelFile:
    """The labels of a mask of any kind on its image's grid, and what its names say; not yet checked.

    Args:
        path: as for :func:`read_lobes`.
        volume: the image.
        strict: refuse named segments that are neither a lobe nor the airway.
        lacking: accept a folder of one file a lobe that lacks some.

    Raises:
        ScanError: unreadable, another grid, fractions, or names that do not say which segments are lobes.
    """
    try:
        if path.is_dir() and lobe_files(path):
            return read_organ_folder(path, volume, lacking=lacking)
        segmentation = segmentation_file(path) if path.exists() else None
        if segmentation is not None:
            return read_dicom_segments(segmentation, volume, strict=strict)
        if path.is_dir():
            return read_organ_folder(path, volume)
        kind = sniff(path)[0] if path.is_file() else "other"
    except OSError as error:
        raise ScanError(f"The lobe mask {path.name} cannot be read", found=error.strerror) from None
    if kind == "nrrd":
        named = read_nrrd_segments(path, volume, strict=strict)
        if named is not None:
            return named
    array = read_mask(path, volume)
    segments = read_label_names(path) if kind == "nifti" else {}
    if not segments:
        return LabelFile(array)
    names = {label: segment.name for label, segment in segments.items()}
    return LabelFile(array, codes_of_segments(segments, path.name, strict=strict), names)


# --- what it shows ---------------------------------------------------------------------------------------------------


def _by_names(
    file: LabelFile, labels: LabelPlaces, name: str, codes: CodeSystem, accepted: Collection[str]
) -> LobeMask:
    assert file.codes is not None
    unnamed = [label for label in weighty(labels.places) if label not in file.codes]
    if unnamed:
        raise ScanError(
            f"{name} holds values that are no segment of it",
            found=labels.described(),
            expected=", ".join(f"{label} {segment}" for label, segment in file.names.items()),
        )
    shown = {label: code for label, code in file.codes.items() if label in labels.places}
    if codes != "auto" and _differs(shown, file, codes):
        raise ScanError(
            f"The names in {name} are others than --lobe-codes {codes} says",
            found=", ".join(f"{label} {file.names.get(label, '')}" for label in shown),
            mend="leave out --lobe-codes: names decide where a file has them",
        )
    places = {code: labels.places[label] for label, code in shown.items()}
    if not set(places) & set(LOBE_BY_CODE):
        raise NoLobesError(
            f"{name} holds no lobe", found=labels.described(), expected="the lobes of a scan", mend=_EMPTY
        )
    array = recode_by(file.array, file.codes)
    said = {file.names[label]: _called(code) for label, code in file.codes.items() if code}
    findings = _checked(places, labels, name, None, accepted)
    return LobeMask(array, "names", "names", said, (*file.findings, *findings))


def _differs(shown: Mapping[int, int], file: LabelFile, codes: CodeSystem) -> bool:
    """Whether a stated convention gives labels another meaning than their names do."""
    return not file.merged and any(meaning_of(label, codes) != code for label, code in shown.items() if code)


def _by_places(file: LabelFile, labels: LabelPlaces, name: str, accepted: Collection[str]) -> LobeMask:
    reading = recognised(labels, accepted)
    if reading is None:
        raise refused(labels, name)
    findings = _checked(reading.lobes, labels, name, reading.codes, accepted)
    return LobeMask(
        recode(file.array, reading.codes, name=name),
        reading.codes,
        "values and places",
        _labels(reading.codes, labels),
        (*file.findings, *findings),
    )


def _as_stated(
    file: LabelFile, labels: LabelPlaces, name: str, codes: CodeSystem, accepted: Collection[str]
) -> LobeMask:
    array = recode(file.array, codes, name=name)
    reading = read_in(labels, codes)
    assert reading is not None  # recode would have raised
    if not reading.lobes:
        raise NoLobesError(
            f"{name} holds no lobe", found=labels.described(), expected=f"lobes in {codes}'s codes", mend=_EMPTY
        )
    findings = _checked(reading.lobes, labels, name, codes, accepted)
    return LobeMask(array, codes, "as stated", _labels(codes, labels), (*file.findings, *findings))


_KINDS = {"sides": "mask-sides", "order": "mask-order", "volume": "mask-volume"}


def _checked(
    lobes: Mapping[int, Place], labels: LabelPlaces, name: str, stated: str | None, accepted: Collection[str]
) -> list[Finding]:
    """Findings of lobes that lie where they should.

    Raises:
        ScanError: they do not, and it is not accepted.
    """
    places = weighty({code: place for code, place in lobes.items() if code in LOBE_BY_CODE})
    faults = contradictions(places, labels)
    if sum(place.volume_ml for place in places.values()) >= JUDGED_ML:
        wrong = [fault for fault in faults if fault.code not in accepted]
        if wrong:
            raise contradicted(labels, name, stated, wrong)
    found = [finding(_KINDS[fault.code], f"in the lobe mask {fault.found}; accepted", "warning") for fault in faults]
    found += [finding("mask-unusual", f"in the lobe mask {odd.found}") for odd in oddities(places)]
    missing = [lobe.abbreviation for lobe in LOBES if lobe.code not in places]
    if missing:
        found.append(finding("mask-missing", f"the lobe mask shows no {', '.join(missing)}", "warning"))
    return found


def _labels(codes: CodeSystem, labels: LabelPlaces) -> dict[str, str]:
    """The convention's labels that a mask shows, or all of them where the airway's value is not in the table."""
    shown = {value: meaning_of(value, codes) for value in (*CODE_MAPS[codes], *labels.places)}
    return {str(value): _called(code) for value, code in shown.items() if code and value in labels.places}


def _called(code: int) -> str:
    return "airway" if code == AIRWAY else LOBE_BY_CODE[code].abbreviation
