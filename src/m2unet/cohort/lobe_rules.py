"""What places say against labels being lobes: sides, order, volumes; real anatomy, cut scans and disease pass."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from m2unet.anatomy import LOBE_BY_CODE, LOBE_CODES
from m2unet.cohort.corrections import LOBE_ML, FaultCode, MaskFault
from m2unet.cohort.label_places import LabelPlaces, Place

SPECK_ML = 1.0
SPECK_SHARE = 0.02
"""A label below both is a slip of a mask: it counts as no lobe, and its place proves nothing."""

_SLAB_MM = 60.0
"""Below this height what lies above what is chance."""

# In body widths (x) and in extents of the lobes (z, y). Beside each, what 51 published lobe maps come to, whole, cut to
# halves, and cut to slabs of a few slices.
_SAME_LUNG = 0.27  # lobes of one lung: at most 0.25 apart; the two lungs: 0.35 and more
_OTHER_LUNG_SPREADS = 1.5  # lobes of the two lungs: at least 3.0 of their spreads apart
_WRONG_SIDE = 0.08  # a right lobe: at most 0.03 to the left of the middle
_ABOVE_AND_BEFORE = 0.0  # an upper lobe before its lower one plus above it: at least 0.09
_ABOVE = -0.1  # an upper lobe above its lower one: at least 0.04
_BEFORE = -0.08  # an upper lobe before its lower one: at least 0.05
_APART_SPREADS = 1.6  # centres of two lobes of one lung: at least 1.8 of their spreads apart
_MIDDLE_BEFORE = -0.1  # the middle lobe before the lower one: at least -0.06


def weighty(places: Mapping[int, Place]) -> dict[int, Place]:
    """The labels that are more than specks."""
    whole = sum(place.volume_ml for place in places.values())
    return {
        label: place
        for label, place in places.items()
        if place.volume_ml >= SPECK_ML or place.volume_ml >= SPECK_SHARE * whole
    }


def contradictions(lobes: Mapping[int, Place], labels: LabelPlaces) -> list[MaskFault]:
    """What speaks against labels being the lobes they would be; empty for all real anatomy that was looked at.

    Args:
        lobes: places by this package's lobe code; codes that are no lobes are passed over.
        labels: the mask they are from, for the body's middle.

    Returns:
        Faults of the codes ``volume``, ``sides`` and ``order``.
    """
    lobes = {code: place for code, place in lobes.items() if code in LOBE_CODES}
    faults = [
        _fault("volume", f"{_name(code)} would have {place.volume_ml:.0f} ml; a lobe has at most {LOBE_ML[1]:.0f}")
        for code, place in lobes.items()
        if place.volume_ml > LOBE_ML[1]
    ]
    split = {code for code, place in lobes.items() if labels.in_both_lungs(place)}
    faults += [_fault("sides", f"{_name(code)} would lie in both lungs") for code in split]
    whole = {code: place for code, place in lobes.items() if code not in split}
    return [*faults, *_sides(whole, labels), *_order(whole)]


def oddities(lobes: Mapping[int, Place]) -> list[MaskFault]:
    """What is unusual but occurs: a middle lobe above the upper one, or hardly before the lower one."""
    found = []
    axes = _extents(lobes)
    if 1 in lobes and 2 in lobes and _apart(lobes, 1, 2, axes)[0] < 0 and axes[0] >= _SLAB_MM:
        found.append(_fault("order", "the centre of RML lies above that of RUL"))
    if 2 in lobes and 3 in lobes and _apart(lobes, 3, 2, axes)[1] < 0:
        found.append(_fault("order", "the centre of RML does not lie in front of that of RLL"))
    return found


def apart(lobes: Mapping[int, Place]) -> bool:
    """Whether no two labels share their place, as lobes do not and lesions of several kinds do."""
    return all(
        sum(
            (2 * (p - q) / (s + t)) ** 2
            for p, q, s, t in zip(one.centre_mm, other.centre_mm, one.spread_mm, other.spread_mm, strict=True)
            if s + t > 0
        )
        > _APART_SPREADS**2
        for one, other in combinations(lobes.values(), 2)
    )


def _sides(lobes: Mapping[int, Place], labels: LabelPlaces) -> list[MaskFault]:
    faults = []
    for (a, one), (b, other) in combinations(sorted(lobes.items()), 2):
        gap = other.centre_mm[2] - one.centre_mm[2]
        spread = (one.spread_mm[2] + other.spread_mm[2]) / 2
        if LOBE_BY_CODE[a].side == LOBE_BY_CODE[b].side:
            if labels.width_mm and abs(gap) > _SAME_LUNG * labels.width_mm:
                faults.append(_fault("sides", f"{_name(a)} and {_name(b)} would lie in different lungs"))
        elif gap <= 0:
            text = f"{_name(a)} would lie {-gap:.0f} mm to the patient's left of {_name(b)}"
            faults.append(_fault("sides", text))
        elif gap < _OTHER_LUNG_SPREADS * spread:
            faults.append(_fault("sides", f"{_name(a)} and {_name(b)} would lie in one lung"))
    for code, place in lobes.items():
        side = LOBE_BY_CODE[code].side
        if labels.offset(place) * (1 if side == "right" else -1) > _WRONG_SIDE:
            other_side = "left" if side == "right" else "right"
            faults.append(_fault("sides", f"{_name(code)} would lie in the patient's {other_side} half"))
    return faults


def _order(lobes: Mapping[int, Place]) -> list[MaskFault]:
    faults = []
    axes = _extents(lobes)
    tall = axes[0] >= _SLAB_MM
    for upper, lower in ((1, 3), (4, 5)):
        if upper not in lobes or lower not in lobes:
            continue
        above, behind = _apart(lobes, upper, lower, axes)
        if behind > -_BEFORE:
            faults.append(_fault("order", f"{_name(upper)} would lie behind {_name(lower)}"))
        elif tall and (above < _ABOVE or above - behind < _ABOVE_AND_BEFORE):
            faults.append(_fault("order", f"{_name(upper)} would lie below {_name(lower)}"))
    if 2 in lobes and 3 in lobes and _apart(lobes, 2, 3, axes)[1] > -_MIDDLE_BEFORE:
        faults.append(_fault("order", "RML would lie behind RLL"))
    smaller = 1 in lobes and 2 in lobes and lobes[1].volume_ml <= lobes[2].volume_ml
    if smaller and tall and _apart(lobes, 1, 2, axes)[0] < 0:
        faults.append(_fault("order", "RUL would lie below RML and be the smaller one"))
    return faults


def _extents(lobes: Mapping[int, Place]) -> tuple[float, float]:
    """Height and depth of all lobes together, mm."""
    found = []
    for axis in (0, 1):
        low = min((place.low_mm[axis] for place in lobes.values()), default=0.0)
        high = max((place.high_mm[axis] for place in lobes.values()), default=0.0)
        found.append(max(high - low, 1.0))
    return found[0], found[1]


def _apart(lobes: Mapping[int, Place], a: int, b: int, axes: tuple[float, float]) -> tuple[float, float]:
    """How far lobe a lies above b, and how far behind it, in extents of all lobes."""
    one, other = lobes[a].centre_mm, lobes[b].centre_mm
    return (one[0] - other[0]) / axes[0], (one[1] - other[1]) / axes[1]


def _fault(code: FaultCode, found: str) -> MaskFault:
    return MaskFault(code, found)


def _name(code: int) -> str:
    return LOBE_BY_CODE[code].abbreviation
