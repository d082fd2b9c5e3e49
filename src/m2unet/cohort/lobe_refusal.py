"""Why a mask is no mask of lobes: what it looks like instead, in words a user can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations

from m2unet.anatomy import CODE_MAPS, LOBE_BY_CODE, LOBE_CODES, LOBES
from m2unet.cohort.corrections import MaskFault
from m2unet.cohort.label_places import LabelPlaces, Place
from m2unet.cohort.lobe_codes import Reading, readings, recognised
from m2unet.cohort.lobe_rules import contradictions, weighty
from m2unet.errors import ScanError

_MANY = 3
_LOBE_FILES = "a DICOM SEG, 3D Slicer's .seg.nrrd or TotalSegmentator's folder, whose segments have names"


def refused(labels: LabelPlaces, name: str) -> ScanError:
    """The error for a mask that follows no known convention.

    Args:
        labels: its labels.
        name: of the file.
    """
    why, mend = _looks_like(labels)
    return ScanError(
        f"{name} is not taken for a mask of lung lobes: {why}",
        found=labels.described(),
        expected=f"{conventions()}; or {_LOBE_FILES}",
        mend=mend,
    )


def contradicted(labels: LabelPlaces, name: str, stated: str | None, faults: Sequence[MaskFault]) -> ScanError:
    """The error for a mask whose labels do not lie where the stated convention, or the names in the file, put them.

    Args:
        labels: its labels.
        name: of the file.
        stated: the convention; None where the file's own names say it.
        faults: what contradicts it.
    """
    if stated is None:
        return ScanError(
            f"The lobes of {name} do not lie where its own names put them: {_several(faults)}",
            found=labels.described(),
            mend="correct the names, or the sides and axes of the mask or its scan",
        )
    fitting = recognised(labels)
    if fitting is not None and fitting.codes != stated:
        why, mend = f"they lie as {fitting.codes}'s codes do", f"--lobe-codes {fitting.codes}"
    else:
        why, mend = _looks_like(labels)
    return ScanError(
        f"The labels of {name} do not lie where lobes do with the codes of {stated}: {_several(faults)}",
        found=f"{labels.described()}; {why}",
        expected=f"{conventions()}; or {_LOBE_FILES}",
        mend=mend,
    )


def conventions() -> str:
    """Every known convention with its codes, in one line."""
    codes = [{code: value for value, code in CODE_MAPS[tool].items()} for tool in CODE_MAPS]
    shown = [
        f"{' '.join(str(values[lobe.code]) for lobe in LOBES)} ({tool})"
        for tool, values in zip(CODE_MAPS, codes, strict=True)
    ]
    return f"{', '.join(lobe.abbreviation for lobe in LOBES)} as {', '.join(shown)}"


def _several(faults: Sequence[MaskFault]) -> str:
    more = len(faults) - _MANY
    return "; ".join(fault.found for fault in faults[:_MANY]) + (f"; and {more} more" if more > 0 else "")


def _looks_like(labels: LabelPlaces) -> tuple[str, str]:
    """What a mask looks like, and what to do."""
    places = weighty(labels.places)
    if not places:
        return "it is empty", "give the mask of this scan"
    known = _few_labels(labels, places) or _turned(labels) or _reordered(labels, places)
    if known is not None:
        return known
    by_values = [one for one in readings(labels) if one.lobes]
    if not by_values:
        return "its values belong to no known convention", "say whose codes they are with --lobe-codes, or recode it"
    nearest = min(by_values, key=lambda one: len(one.faults))
    if nearest.faults:
        return f"read as {nearest.codes}'s codes, {_several(nearest.faults)}", "check the mask against its scan"
    return _too_little(by_values)


_FIVE = "give a mask of the five lobes, e.g. lungmask's model LTRCLobes, TotalSegmentator or `m2unet predict`"


def _few_labels(labels: LabelPlaces, places: Mapping[int, Place]) -> tuple[str, str] | None:
    """Lungs, one organ, lesions: what one to three labels may be."""
    sides = {label: labels.side(place) for label, place in places.items()}
    why = None
    if len(places) == 1:
        if set(sides.values()) == {"both sides"}:
            why = "one label for both lungs, a lung or lesion mask and not their lobes"
        elif len(labels.places) == 1:
            return (
                "one label alone, a single organ or lobe; nothing says which",
                "give the file or folder of all lobes; for TotalSegmentator the folder, not one file of it",
            )
    elif len(places) <= 3 and set(sides.values()) == {"both sides"}:
        why = "every label lies in both lungs, as opacities or vessels do, and not lobes"
    elif sides == {1: "right", 2: "left"}:
        why = "both lungs, 1 right and 2 left, as lungmask's R231 writes them, and not their lobes"
    elif sorted(sides.values()) == ["left", "right"] and _whole_lungs(places):
        why = "both lungs, one label each, and not their lobes"
    elif len(places) == 3 and {"left", "right"} <= set(sides.values()) and not _fits_any(labels):
        why = "it looks like both lungs and a third structure (airway, infection), and not their lobes"
    return None if why is None else (why, _FIVE)


def _whole_lungs(places: Mapping[int, Place]) -> bool:
    """Whether two labels span the same height, as lungs do."""
    one, other = places.values()
    height = max(one.high_mm[0], other.high_mm[0]) - min(one.low_mm[0], other.low_mm[0])
    return height > 0 and all((place.high_mm[0] - place.low_mm[0]) > 0.8 * height for place in (one, other))


def _fits_any(labels: LabelPlaces) -> bool:
    return any(one.lobes and not one.faults for one in readings(labels))


def _turned(labels: LabelPlaces) -> tuple[str, str] | None:
    """A known convention in a mirror: left and right, front and back, or head and feet exchanged."""
    mirrors = {
        2: ("left and right exchanged", "the patient has dextrocardia, or the mask or its scan is mirrored"),
        1: ("front and back exchanged", "the mask or its scan is turned"),
        0: ("head and feet exchanged", "the mask or its scan is turned"),
    }
    for axis, (words, cause) in mirrors.items():
        fitting = recognised(_mirrored(labels, axis))
        if fitting is not None:
            mend = "correct the geometry"
            if axis == 2:
                mend += f"; if the patient is mirrored, --lobe-codes {fitting.codes} with --accept mask-sides"
            return f"the mirror image of {fitting.codes}'s codes, {words}: {cause}", mend
    return None


def _mirrored(labels: LabelPlaces, axis: int) -> LabelPlaces:
    ends = max((place.high_mm[axis] for place in labels.places.values()), default=0.0)

    def turned(values: tuple[float, float, float]) -> tuple[float, float, float]:
        z, y, x = (ends - value if n == axis else value for n, value in enumerate(values))
        return z, y, x

    places = {
        label: replace(
            place,
            centre_mm=turned(place.centre_mm),
            low_mm=turned(_mixed(place.low_mm, place.high_mm, axis)),
            high_mm=turned(_mixed(place.high_mm, place.low_mm, axis)),
            groups_mm=(ends - place.groups_mm[1], ends - place.groups_mm[0]) if axis == 2 else place.groups_mm,
        )
        for label, place in labels.places.items()
    }
    middle = labels.middle_mm
    if axis == 2 and middle is not None:
        middle = ends - middle
    return LabelPlaces(places, middle, labels.width_mm)


def _mixed(
    values: tuple[float, float, float], instead: tuple[float, float, float], axis: int
) -> tuple[float, float, float]:
    z, y, x = (instead[n] if n == axis else value for n, value in enumerate(values))
    return z, y, x


def _reordered(labels: LabelPlaces, places: Mapping[int, Place]) -> tuple[str, str] | None:
    """Five labels that lie as the five lobes do, in an order of nobody's."""
    if len(places) != len(LOBES):
        return None
    orders = [
        order
        for order in permutations(LOBE_CODES)
        if not contradictions(dict(zip(order, places.values(), strict=True)), labels)
    ]
    if not orders:
        return None
    if len(orders) > 1:
        return "five labels in an order of no known tool", "recode the mask"
    said = ", ".join(
        f"{label} {LOBE_BY_CODE[code].abbreviation}" for label, code in zip(places, orders[0], strict=True)
    )
    return f"five lobes in an order of no known tool; by their places {said}", "recode the mask; see what is expected"


def _too_little(fitting: Sequence[Reading]) -> tuple[str, str]:
    """Conventions fit, but too few lobes are there, or several fit and disagree."""
    tools = list(dict.fromkeys(one.codes for one in fitting if not one.faults))
    said = "too few labels to tell lobes of one lung from other structures in it"
    if len(tools) > 1:
        said = f"its labels could be those of {' or '.join(tools)}"
    return said, f"say whose codes they are with --lobe-codes, e.g. --lobe-codes {tools[0]}"
