"""Label conventions of lobe masks: which one a mask follows, by its values and where they lie, and recoding."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY, CODE_MAPS, LEFT_CODES, LOBE_BY_CODE, RIGHT_CODES, CodeSystem
from m2unet.cohort.corrections import MaskFault
from m2unet.cohort.label_places import LabelPlaces, Place
from m2unet.cohort.lobe_rules import apart, contradictions, weighty
from m2unet.errors import ScanError

_WHOLE_BODY: tuple[CodeSystem, ...] = ("totalsegmentator-v1", "totalsegmentator-v2")


@dataclass(frozen=True)
class Reading:
    """A mask read in one convention.

    Attributes:
        codes: which.
        lobes: places of the lobes it would show, specks left out, by our code.
        others: labels that would be other structures: organs, the airway.
        faults: what speaks against it.
    """

    codes: CodeSystem
    lobes: Mapping[int, Place]
    others: int
    faults: tuple[MaskFault, ...]

    def same_lobes(self, other: Reading) -> bool:
        """Whether both find the same labels to be the same lobes."""
        return self.lobes == other.lobes


def readings(labels: LabelPlaces) -> list[Reading]:
    """The mask in every convention that knows all its values, those that fit or not."""
    return [found for codes in CODE_MAPS if (found := read_in(labels, codes)) is not None]


def read_in(labels: LabelPlaces, codes: CodeSystem) -> Reading | None:
    """The mask in one convention, None if a value is unknown to it."""
    meaning = {label: meaning_of(label, codes) for label in labels.places}
    if any(code is None for code in meaning.values()):
        return None
    lobes = {meaning[label] or 0: place for label, place in weighty(labels.places).items()}
    lobes = {code: place for code, place in lobes.items() if code in LOBE_BY_CODE}
    others = sum(code not in LOBE_BY_CODE for code in meaning.values())
    return Reading(codes, lobes, others, tuple(contradictions(lobes, labels)))


def recognised(labels: LabelPlaces, accept: Collection[str] = ()) -> Reading | None:
    """Which convention a mask follows.

    One comes into question if it knows every value, and the lobes that they would be lie as lobes do: right and left,
    upper above lower, the middle lobe in front, none of them impossibly large. Enough of them must be there for this
    to prove something. Of several that fit, the one that explains most lobes is taken.

    Args:
        labels: the mask's labels.
        accept: codes of faults to live with: ``sides``, ``order``, ``volume``.

    Returns:
        None where none fits, or several fit and disagree.
    """
    fitting = [
        one for one in readings(labels) if all(fault.code in accept for fault in one.faults) and _proves(one, labels)
    ]
    most = max((len(one.lobes) for one in fitting), default=0)
    best = [one for one in fitting if len(one.lobes) == most]
    return best[0] if best and all(one.same_lobes(best[0]) for one in best) else None


def _proves(reading: Reading, labels: LabelPlaces) -> bool:
    """Whether enough lobes are there: both sides, or two of one lung beside other organs or with telling values.

    Labels 1 to 3 in one lung may as well be opacities unless they are three that do not share their places; a single
    label may be anything.
    """
    right, left = (any(code in reading.lobes for code in side) for side in (RIGHT_CODES, LEFT_CODES))
    if right and left:
        return True
    if reading.others and reading.codes in _WHOLE_BODY and len(labels.places) > 2:
        return bool(reading.lobes)
    if set(labels.places) <= {1, 2, 3}:
        return len(reading.lobes) == 3 and apart(reading.lobes)
    return len(reading.lobes) >= 2


def recode(array: NDArray[np.int16], codes: CodeSystem, *, name: str) -> NDArray[np.uint8]:
    """Turn another tool's codes into ours.

    Args:
        array: any shape.
        codes: the tool, a key of :data:`m2unet.anatomy.CODE_MAPS`.
        name: of the file, for the message.

    Returns:
        Codes 0-6, same shape.

    Raises:
        ScanError: naming the values that are no codes of that tool, and the tool whose codes they would be.
    """
    if codes not in CODE_MAPS:
        raise ScanError("There is no such system of lobe codes", found=codes, expected=f"one of {', '.join(CODE_MAPS)}")
    values = _values(array)
    table = {value: meaning_of(value, codes) for value in values}
    unknown = [value for value, code in table.items() if code is None]
    if unknown:
        tool = _likeliest(values)
        raise ScanError(
            f"The lobe mask {name} holds values that are no lobe codes",
            found=_listed(unknown),
            expected=f"0 and {_listed(sorted(CODE_MAPS[codes]))} ({codes})",
            mend=f"say whose codes they are, e.g. lobe_codes={tool!r}" if tool else "recode the mask",
        )
    return recode_by(array, {value: code or 0 for value, code in table.items()})


def recode_by(array: NDArray[np.int16], table: Mapping[int, int]) -> NDArray[np.uint8]:
    """Each value replaced by its code; values that the table lacks become 0."""
    lookup = np.zeros(1 << 16, dtype=np.uint8)
    for value, code in table.items():
        lookup[np.int16(value).view(np.uint16)] = code
    return lookup[np.ascontiguousarray(array).view(np.uint16)]


def meaning_of(value: int, codes: CodeSystem) -> int | None:
    """Our code for another tool's value, None if that tool has no such value."""
    if value < 0:
        return None
    if value == 0:
        return 0
    if codes == "luna16":  # high byte 2 is airway, in a lobe or not; a few voxels hold a stray low byte of 1
        if value >> 8 == 2:
            return AIRWAY
        return 0 if value == 1 else CODE_MAPS[codes].get(value)
    return CODE_MAPS[codes].get(value, 0 if codes in _WHOLE_BODY and value <= 255 else None)


def _likeliest(values: list[int]) -> CodeSystem | None:
    """The tool to which the most of these values are lobes and none is unknown."""
    lobes = {
        tool: sum(bool(meaning_of(value, tool)) for value in values)
        for tool in CODE_MAPS
        if all(meaning_of(value, tool) is not None for value in values)
    }
    ranked = sorted((count, tool) for tool, count in lobes.items() if count)
    return ranked[-1][1] if ranked else None


def _values(array: NDArray[np.int16]) -> list[int]:
    counts = np.zeros(1 << 16, dtype=np.int64)
    for part in np.array_split(np.ascontiguousarray(array).reshape(-1), max(1, array.size >> 22)):
        counts += np.bincount(part.view(np.uint16), minlength=1 << 16)
    return sorted(int(np.uint16(value).view(np.int16)) for value in np.flatnonzero(counts))


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values[:12])) + (f" and {len(values) - 12} more" if len(values) > 12 else "")
