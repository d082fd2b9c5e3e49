"""What the named segments of a mask file mean: which are lobes, which the airway, and which cannot be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY, LOBE_BY_CODE, LOBES
from m2unet.cohort.mask_files.names import code_by_concept, codes_by_name, is_generic, names_a_part
from m2unet.ct.findings import Finding
from m2unet.errors import ScanError

_SHOWN = 12


@dataclass(frozen=True)
class Segment:
    """One named segment.

    Attributes:
        name: as the file has it.
        concept: coding scheme, code value, and code value of the side; empty strings where the file has none.
    """

    name: str
    concept: tuple[str, str, str] = ("", "", "")


@dataclass(frozen=True)
class LabelFile:
    """A mask as its file has it, on the canonical grid of its scan.

    Attributes:
        array: ``[z, y, x]`` labels.
        codes: our code by label where names decide, 0 for what is no lobe and no airway; None where they do not.
        names: the file's name by label; empty where it has none.
        findings: what the user should know about the reading.
        merged: whether the labels are our codes because the file has none of its own.
    """

    array: NDArray[np.int16]
    codes: Mapping[int, int] | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    merged: bool = False


def codes_of_segments(segments: Mapping[int, Segment], file: str, *, strict: bool = False) -> dict[int, int] | None:
    """Our code of each segment.

    Args:
        segments: by label or number.
        file: its name, for messages.
        strict: refuse segments that are neither a lobe nor the airway, instead of leaving them out.

    Returns:
        Our code by label, 0 for other structures; None where no name says anything (``Segment_1``, ``Segment_2``).

    Raises:
        ScanError: no segment is a lobe, two are the same lobe, a name and its code differ, or a segment without a name
            of its own, or with the name of a part of a lobe, lies beside named lobes.
    """
    found = {
        label: _meaning(segment, by_name, file)
        for (label, segment), by_name in zip(
            segments.items(), codes_by_name([s.name for s in segments.values()]), strict=True
        )
    }
    lobes = Counter(code for code in found.values() if code is not None and code in LOBE_BY_CODE)
    if not lobes and all(is_generic(segment.name) for segment in segments.values()):
        return None
    unknown = [segments[label].name for label, code in found.items() if code is None]
    unclear = [name for name in unknown if strict or is_generic(name) or names_a_part(name)]
    if not lobes or unclear:
        raise ScanError(
            f"{file} has segments that are no lobes",
            found=_shown(unclear if lobes else [segment.name for segment in segments.values()]),
            expected=", ".join([lobe.abbreviation for lobe in LOBES] + ["AIR"]),
            mend="delete them, or rename them to one of these" if lobes else "give a file whose segments are lobes",
        )
    twice = [LOBE_BY_CODE[code].abbreviation for code, count in lobes.items() if count > 1]
    if twice:
        raise ScanError(
            f"{file} has several segments of one lobe", found=", ".join(twice), expected="one segment for each lobe"
        )
    return {label: code or 0 for label, code in found.items()}


def _meaning(segment: Segment, by_name: int | None, file: str) -> int | None:
    by_concept = code_by_concept(*segment.concept)
    if by_name is not None and by_concept is not None and by_name != by_concept:
        raise ScanError(
            f"A segment of {file} contradicts itself",
            found=f"it is called {segment.name!r}, but coded as {_abbreviation(by_concept)}",
            mend="correct its name or its terminology",
        )
    return by_concept if by_name is None else by_name


def _abbreviation(code: int) -> str:
    return "airway" if code == AIRWAY else LOBE_BY_CODE[code].abbreviation


def _shown(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
