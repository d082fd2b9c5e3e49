"""Which CT series of a DICOM folder is the scan.

A series asked for by its UID or digest is taken whatever the others are. Otherwise the newest study is taken, by its
date and time and never by series number; and within it, of the CT series with at least two slices and sound geometry,
axial ones before others, original reconstructions before derived ones; of those that cover at least 80 % of the
longest, the thinnest distance between slices, then a lung kernel, then the most slices, then the lowest series number.
"""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from m2unet.ct.dicom_files import XRAY_MODALITIES
from m2unet.ct.dicom_header import Slice, element, whole
from m2unet.ct.dicom_stack import Stack, arrange
from m2unet.ct.findings import Finding, QualityError, finding
from m2unet.ct.identity import uid_digest

COVERAGE = 0.8
"""Of the longest series' extent: a shorter one is a part of the chest only."""

SHOWN_DIGITS = 8
"""Digits of a series' digest in messages."""

MIN_DIGITS = 6
"""Fewer digits of a digest name no series: they could fit several by chance."""

_LISTED = 5
"""More series or studies than this are counted in messages, not listed."""

# by maker: GE LUNG, BONE, EDGE; Siemens B, Br, Bl, I 50-89; Canon FC30, FC50-59, FC80-89; Philips L, YA-YD, D, E
_LUNG_KERNEL = re.compile(r"lung|bone|edge|sharp|^(b|br|bl|i)[5-8]\d|^fc(30|5\d|8\d)|^(l|y[a-d]|d|e)$", re.IGNORECASE)
_PARTIAL = frozenset({"LOCALIZER", "MIP", "MPR", "MINIP", "PROJECTION IMAGE", "SCREEN SAVE", "DOSE_INFO", "CSA MPR"})


@dataclass(frozen=True)
class Candidate:
    """One series that could be the scan.

    Attributes:
        slices: all its CT slices but localisers.
        stack: their order and geometry.
    """

    slices: tuple[Slice, ...]
    stack: Stack

    @property
    def original(self) -> bool:
        """Whether it is an original reconstruction rather than a derived or secondary image."""
        kinds = image_type(self.slices[0])
        return not (set(kinds) & (_PARTIAL | {"DERIVED", "SECONDARY"}))

    @property
    def kernel(self) -> str:
        """Convolution kernel, empty if unknown."""
        value = self.slices[0].header.get("ConvolutionKernel") or ""
        return str(value if isinstance(value, str) else next(iter(value), ""))

    @property
    def number(self) -> int:
        """Series number; a high one if there is none."""
        found = whole(self.slices[0].header.get("SeriesNumber"))
        return 1 << 31 if found is None else found

    @cached_property
    def digest(self) -> str:
        """What names the series without its UID: 64 hexadecimal digits, of its instance UIDs where it has no UID."""
        uid = self.slices[0].series or "\n".join(sorted(str(s.header.get("SOPInstanceUID") or "") for s in self.slices))
        return uid_digest(uid)

    def said(self) -> str:
        """The series in words, without identifiers."""
        spacing = f"{self.stack.spacing_mm:.2f} mm apart" if len(self.stack.slices) > 1 else "no stack"
        axial = "axial" if self.stack.axial else "not axial"
        kernel = f", kernel {self.kernel}" if self.kernel else ""
        return f"{len(self.slices)} slices {spacing}, {axial}{kernel}"


def image_type(item: Slice) -> tuple[str, ...]:
    """Values of ImageType, upper case."""
    value = item.header.get("ImageType") or ()
    return tuple(str(v).upper() for v in ([value] if isinstance(value, str) else value))


def check_patients(slices: Sequence[Slice], findings: Sequence[Finding]) -> None:
    """Refuse files of several patients where no series was asked for.

    Raises:
        QualityError: there are several.
    """
    patients = {str(item.header.get("PatientID") or "") for item in slices}
    if len(patients) > 1:
        raise QualityError([*findings, finding("several-patients", f"{len(patients)} patients")])


def candidates(slices: Sequence[Slice], findings: list[Finding]) -> list[Candidate]:
    """The CT series among all slices.

    Args:
        slices: of every series.
        findings: notes are added here.

    Raises:
        QualityError: there are no CT slices.
    """
    ct = [s for s in slices if _modality(s) == "CT"]
    if not ct:
        raise QualityError([*findings, _no_ct(slices)])
    scans = [s for s in ct if "LOCALIZER" not in image_type(s)]
    if not scans:
        raise QualityError([*findings, finding("x-ray", "only localisers (scout views) of a CT")])
    left = len(slices) - len(scans)
    if left:
        findings.append(finding("files-skipped", f"{left} images that are localisers or no CT"))
    series: dict[str, list[Slice]] = defaultdict(list)
    for item in scans:
        series[item.series].append(item)
    return [Candidate(tuple(group), arrange(group)) for group in series.values()]


def _modality(item: Slice) -> str:
    return str(item.header.get("Modality") or "").upper()


def _no_ct(slices: Sequence[Slice]) -> Finding:
    found = sorted({_modality(s) or "none" for s in slices})
    code = "x-ray" if set(found) <= XRAY_MODALITIES else "not-ct"
    return finding(code, f"modality {', '.join(found)} in {len(slices)} image(s)")


def asked_for(series: Sequence[Candidate], name: str) -> Candidate:
    """The series of that name.

    Args:
        series: the candidates.
        name: its SeriesInstanceUID, or the beginning of its digest.

    Raises:
        QualityError: there is no such series, or several; it lists what there is.
    """
    wanted = name.strip()
    fits = [c for c in series if c.slices[0].series and c.slices[0].series == wanted]
    if not fits and len(wanted) >= MIN_DIGITS:
        fits = [c for c in series if c.digest.startswith(wanted.lower())]
    if len(fits) == 1:
        return fits[0]
    reason = "several series fit it" if fits else "no CT series here has this UID or digest"
    if len(wanted) < MIN_DIGITS:
        reason = f"at least {MIN_DIGITS} digits of a digest are needed"
    raise QualityError([finding("series-not-found", f"{reason}; there are: {_listed(fits or series)}")])


def _listed(series: Sequence[Candidate]) -> str:
    """Series with their digests, the ones with most slices first."""
    ordered = sorted(series, key=lambda c: (-len(c.slices), c.digest))
    shown = "; ".join(f"{c.digest[:SHOWN_DIGITS]} ({c.said()})" for c in ordered[:_LISTED])
    return shown + _and_more(ordered)


def choose(series: Sequence[Candidate], findings: list[Finding]) -> Candidate:
    """One of the candidates, by the rule above.

    Args:
        series: at least one.
        findings: what was chosen from is added here if there was a choice.

    Raises:
        QualityError: several studies of which none is known to be the newest, or a series UID for every file.
    """
    _check_series_uids(series, findings)
    return _choose_series(_newest_study(series, findings), findings)


def _check_series_uids(series: Sequence[Candidate], findings: Sequence[Finding]) -> None:
    """Tell a stack whose files each have a series UID of their own from a folder of single images."""
    single = [c.slices[0] for c in series if len(c.slices) == 1]
    largest = max(len(c.slices) for c in series)
    if len(single) <= max(2, largest) or len(arrange(single).slices) < len(single) / 2:
        return
    said = f"{len(single)} files have a {element('SeriesInstanceUID')} of their own each"
    raise QualityError([*findings, finding("bad-uids", said)])


def _choose_series(series: Sequence[Candidate], findings: list[Finding]) -> Candidate:
    if len(series) == 1:
        return series[0]
    chosen = _best(series)
    others = _others([c for c in series if c is not chosen])
    findings.append(finding("series-chosen", f"1 of {len(series)} series: {chosen.said()}; not taken: {others}"))
    return chosen


def _others(series: Sequence[Candidate]) -> str:
    ordered = sorted(series, key=lambda c: (-len(c.slices), c.number))
    return "; ".join(c.said() for c in ordered[:_LISTED]) + _and_more(ordered)


def _best(series: Sequence[Candidate]) -> Candidate:
    usable = [c for c in series if c.stack.usable and len(c.stack.slices) > 1] or list(series)
    axial = [c for c in usable if c.stack.axial] or usable
    original = [c for c in axial if c.original] or axial
    longest = max(c.stack.coverage_mm for c in original)
    whole_chest = [c for c in original if c.stack.coverage_mm >= COVERAGE * longest]
    return min(
        whole_chest,
        key=lambda c: (
            round(c.stack.spacing_mm, 2),
            _LUNG_KERNEL.search(c.kernel) is None,
            -len(c.stack.slices),
            c.number,
            c.slices[0].series,
        ),
    )


# --- several studies -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Study:
    """Series of one study, with the day of it (None if unknown) and the time (empty if unknown)."""

    series: tuple[Candidate, ...]
    day: datetime.date | None
    time: str

    def after(self, other: _Study) -> bool:
        """Whether it is surely later than another; on one day both times must be known."""
        if self.day is None or other.day is None:
            return False
        if self.day != other.day:
            return self.day > other.day
        return bool(self.time and other.time) and self.time > other.time


def _newest_study(series: Sequence[Candidate], findings: list[Finding]) -> Sequence[Candidate]:
    """The series of the newest study; a warning says how to ask for the others."""
    stacks = [c for c in series if len(c.slices) > 1]  # single images (screenshots, dose tables) are no study to choose
    studies = _studies(stacks)
    if len(studies) < 2:
        return series
    newest, *others = sorted(studies, key=lambda s: (s.day or datetime.date.min, s.time), reverse=True)
    if not all(newest.after(other) for other in others):
        listed = _listed([_best(study.series) for study in studies])
        said = f"{len(studies)} studies, and no date and time that say which is the newest; their series: {listed}"
        raise QualityError([*findings, finding("several-studies", said, "error")])
    older = "; ".join(_older(newest, other) for other in others[:_LISTED]) + _and_more(others)
    findings.append(finding("several-studies", f"the newest of {len(studies)} studies is taken; not taken: {older}"))
    return newest.series


def _studies(series: Sequence[Candidate]) -> list[_Study]:
    """Series by study; several dates under one study UID are several studies all the same."""
    by_uid: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in series:
        by_uid[str(candidate.slices[0].header.get("StudyInstanceUID") or "")].append(candidate)
    studies = []
    for group in by_uid.values():
        days = {day for c in group if (day := _moment(c, "Study")[0]) is not None}
        parts: dict[datetime.date | None, list[Candidate]] = defaultdict(list)
        for candidate in group:
            parts[_moment(candidate, "Study")[0] if len(days) > 1 else None].append(candidate)
        studies += [_Study(tuple(part), *_start(part)) for part in parts.values()]
    return studies


def _start(series: Sequence[Candidate]) -> tuple[datetime.date | None, str]:
    """Day and time of a study: its own, else the earliest of its series or acquisitions."""
    for kind in ("Study", "Series", "Acquisition"):
        known = [(day, time) for c in series for day, time in [_moment(c, kind)] if day is not None]
        if known:
            return min(known)
    return None, ""


def _moment(candidate: Candidate, kind: str) -> tuple[datetime.date | None, str]:
    header = candidate.slices[0].header
    joined = str(header.get(f"{kind}DateTime") or "")
    day = str(header.get(f"{kind}Date") or joined[:8]).replace(".", "").strip()  # ACR-NEMA wrote 2020.02.11
    time = str(header.get(f"{kind}Time") or joined[8:14]).replace(":", "").strip()
    try:
        parsed = datetime.datetime.strptime(day, "%Y%m%d").date()  # a day has no zone
    except ValueError:
        return None, ""
    return parsed, time if re.fullmatch(r"\d{4,6}(\.\d*)?", time) else ""


def _older(newest: _Study, other: _Study) -> str:
    assert newest.day is not None and other.day is not None
    days = (newest.day - other.day).days
    age = f"one {days} day{'s' if days > 1 else ''} older" if days else "one earlier on the same day"
    series = _best(other.series)
    return f"{age}, series {series.digest[:SHOWN_DIGITS]} ({series.said()})"


def _and_more(listed: Sequence[object]) -> str:
    more = len(listed) - _LISTED
    return f"; and {more} more" if more > 0 else ""
