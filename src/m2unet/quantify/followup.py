"""Change of one patient between dated scans, with the error of measurement, and a verdict by a stated rule.

The rule, on the opacity percentage P of both lungs:

1. Breath. P is compared twice: as it is, and with the later scan brought to the earlier one's depth of breath under the
   assumption that opacity keeps its volume (:mod:`m2unet.quantify.inflation`). The change D is the mean of the two.
2. Error. Each measurement of P has a standard deviation that grows with slice thickness and with P: the
   :class:`m2unet.quantify.timeline.ErrorModel`, calibrated on repeats of phantoms on one day. The variances of the two
   scans add up, and half the gap between the two comparisons of step 1 is added as one more standard deviation.
3. Reliable change index D / sigma (Jacobson and Truax 1991, *J Consult Clin Psychol* 59:12-19). Beyond 1.96, and with
   D of at least ``least_points``, the verdict is *progress* (more opacity) or *regress* (less); else *stable*: no
   change that these two scans can prove.

A figure that cannot be had in either scan has no change, with the reason; without the lungs' figures no verdict.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from m2unet.errors import M2UNetError
from m2unet.quantify.inflation import at_reference_breath, density_ratio
from m2unet.quantify.lobes import GROUPS
from m2unet.quantify.timeline import ErrorModel, TimePoint

Verdict = Literal["progress", "stable", "regress"]

Z = 1.96
"""Two-sided 95 %."""


@dataclass(frozen=True)
class Change:
    """Change of one figure, and how sure it is.

    Attributes:
        before, after, change: in the figure's unit; ``change`` is after minus before, corrected where the rule says so.
        sigma: standard deviation of the change by the error of measurement; None where none is known.
        low, high: ``change`` minus and plus 1.96 ``sigma``.
        index: reliable change index, ``change / sigma``.
        reason: why ``change`` is None.
    """

    before: float | None = None
    after: float | None = None
    change: float | None = None
    sigma: float | None = None
    low: float | None = None
    high: float | None = None
    index: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class PartChange:
    """Changes of a part.

    Attributes:
        volume_ml: breath changes it as well as disease.
        opacity_ml: at the depths of breath of the scans.
        opacity_percent: by the rule, breath accounted for.
        at_same_breath: percent of the later scan at the earlier one's depth of breath, opacity keeping its volume.
    """

    volume_ml: Change
    opacity_ml: Change
    opacity_percent: Change
    at_same_breath: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Two scans of a patient.

    Attributes:
        first, second: names of the scans.
        days: between them.
        density_ratio: density of the later scan's aerated lung over the earlier one's; above 1 breathed in less.
        parts: by name of :data:`m2unet.quantify.lobes.GROUPS`.
        scores: ``ct_severity_score`` and ``lobar_ct_score``.
        severity: probability of severe; its sigma is the spread over bags alone.
        verdict: by the rule; None where it cannot be given.
        reason: the verdict in words, or why there is none.
        notes: what else bears on the comparison.
    """

    first: str
    second: str
    days: int
    density_ratio: float | None
    parts: Mapping[str, PartChange]
    scores: Mapping[str, Change]
    severity: Change
    verdict: Verdict | None
    reason: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Followup:
    """A patient over time.

    Attributes:
        points: the scans, by date.
        steps: each scan against the one before.
        overall: the last scan against the first.
        model: the error of measurement used.
    """

    points: tuple[TimePoint, ...]
    steps: tuple[Comparison, ...]
    overall: Comparison
    model: ErrorModel

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping; dates as YYYY-MM-DD."""
        found = asdict(self)
        for point in found["points"]:
            point["date"] = point["date"].isoformat()
        return found


def follow(points: Sequence[TimePoint], model: ErrorModel | None = None) -> Followup:
    """Compare a patient's scans: each with the one before, and the last with the first.

    Args:
        points: at least two, of one patient; sorted by date, scans of one day by name.
        model: the error of measurement.

    Raises:
        M2UNetError: with fewer than two scans.
    """
    if len(points) < 2:
        raise M2UNetError("A follow-up needs two scans of a patient", found=len(points), expected="2 or more")
    chosen = model or ErrorModel()
    ordered = tuple(sorted(points, key=lambda point: (point.date, point.name)))
    steps = tuple(compare(a, b, chosen) for a, b in itertools.pairwise(ordered))
    overall = steps[0] if len(ordered) == 2 else compare(ordered[0], ordered[-1], chosen)
    return Followup(ordered, steps, overall, chosen)


def compare(first: TimePoint, second: TimePoint, model: ErrorModel) -> Comparison:
    """Compare two scans of one patient by the rule at the head of this module."""
    ratio = None
    if first.aerated_hu is not None and second.aerated_hu is not None:
        ratio = density_ratio(second.aerated_hu, first.aerated_hu)
    parts = {name: _part(name, first, second, ratio, model) for name in GROUPS}
    verdict, reason = judge(parts["lungs"].opacity_percent, model)
    return Comparison(
        first=first.name,
        second=second.name,
        days=(second.date - first.date).days,
        density_ratio=ratio,
        parts=parts,
        scores={name: _score(name, first, second, model) for name in ("ct_severity_score", "lobar_ct_score")},
        severity=_severity(first, second),
        verdict=verdict,
        reason=reason,
        notes=tuple(_notes(first, second, ratio)),
    )


def judge(change: Change, model: ErrorModel) -> tuple[Verdict | None, str]:
    """Step 3 of the rule: the verdict on a change of the lungs' opacity percentage, and why."""
    if change.change is None or change.index is None:
        return None, change.reason or "the error of measurement is not known"
    by, index = change.change, change.index
    said = f"opacity of the lungs changed by {by:+.1f} points (95 % {change.low:+.1f} to {change.high:+.1f})"
    if abs(index) <= Z:
        return "stable", f"{said}: within the error of measurement"
    if abs(by) < model.least_points:
        return "stable", f"{said}: less than {model.least_points:g} points"
    return ("progress" if by > 0 else "regress"), f"{said}: beyond the error of measurement"


# --- single figures --------------------------------------------------------------------------------------------------


def _part(name: str, first: TimePoint, second: TimePoint, ratio: float | None, model: ErrorModel) -> PartChange:
    a, b = first.parts[name], second.parts[name]
    reason = "; ".join(f"{p.name}: {f.reason}" for p, f in ((first, a), (second, b)) if f.volume_ml is None) or None
    volume_sigma = None
    if a.volume_ml is not None and b.volume_ml is not None:
        volume_sigma = model.volume_share * math.hypot(a.volume_ml, b.volume_ml)
    percent, same_breath = _opacity(name, first, second, ratio, model)
    return PartChange(
        volume_ml=_change(a.volume_ml, b.volume_ml, volume_sigma, reason),
        opacity_ml=_change(a.opacity_ml, b.opacity_ml, _opacity_ml_sigma(name, first, second, model), reason),
        opacity_percent=percent
        if percent.change is not None
        else Change(a.opacity_percent, b.opacity_percent, reason=reason),
        at_same_breath=same_breath,
    )


def _opacity(
    name: str, first: TimePoint, second: TimePoint, ratio: float | None, model: ErrorModel
) -> tuple[Change, float | None]:
    """Steps 1 and 2 of the rule."""
    a, b = first.parts[name], second.parts[name]
    before, after = a.opacity_percent, b.opacity_percent
    if before is None or after is None or b.opacity_ml is None or not b.volume_ml:
        return Change(), None
    same_breath = after if ratio is None else at_reference_breath(b.opacity_ml, b.volume_ml, ratio)
    change = 0.5 * (after + same_breath) - before
    lobe = len(GROUPS[name]) == 1
    measured = math.hypot(
        model.sigma(before, first.thickness_mm, lobe=lobe), model.sigma(after, second.thickness_mm, lobe=lobe)
    )
    return _with_error(before, after, change, math.hypot(measured, 0.5 * (after - same_breath))), same_breath


def _opacity_ml_sigma(name: str, first: TimePoint, second: TimePoint, model: ErrorModel) -> float | None:
    total = 0.0
    for point in (first, second):
        part = point.parts[name]
        if part.opacity_percent is None or part.volume_ml is None:
            return None
        points = model.sigma(part.opacity_percent, point.thickness_mm, lobe=len(GROUPS[name]) == 1)
        total += (points / 100.0 * part.volume_ml) ** 2
    return math.sqrt(total)


def _score(name: str, first: TimePoint, second: TimePoint, model: ErrorModel) -> Change:
    before, after = first.scores.get(name), second.scores.get(name)
    sigma = math.sqrt(2.0) * float(getattr(model, name))
    return _change(before, after, sigma, "a part of it could not be scored")


def _severity(first: TimePoint, second: TimePoint) -> Change:
    sigma = None
    if first.severity_spread is not None and second.severity_spread is not None:
        sigma = math.hypot(first.severity_spread, second.severity_spread)
    reasons = dict.fromkeys(point.severity_reason for point in (first, second) if point.severity_reason)
    return _change(first.severity, second.severity, sigma, "; ".join(reasons) or "no model classified both scans")


def _change(before: float | None, after: float | None, sigma: float | None, reason: str | None) -> Change:
    if before is None or after is None:
        return Change(before, after, reason=reason or "not measured in both scans")
    return _with_error(before, after, after - before, sigma)


def _with_error(before: float, after: float, change: float, sigma: float | None) -> Change:
    if sigma is None:
        return Change(before, after, change)
    index = change / sigma if sigma > 0 else None
    return Change(before, after, change, sigma, change - Z * sigma, change + Z * sigma, index)


def _notes(first: TimePoint, second: TimePoint, ratio: float | None) -> list[str]:
    notes = []
    for point in (first, second):
        cut = [name for name, part in point.parts.items() if part.partial and name != "lungs"]
        if cut:
            notes.append(f"{point.name}: the field of view cuts {', '.join(cut)}")
    if ratio is None:
        notes.append("the depth of breath could not be compared: too little aerated lung")
    elif ratio > 1.15 or ratio < 1 / 1.15:
        deeper = first.name if ratio > 1 else second.name
        notes.append(
            f"{deeper} was breathed in more deeply: aerated lung {abs(ratio - 1) * 100:.0f} % apart in density"
        )
    if max(first.thickness_mm, second.thickness_mm) > 1.5 * min(first.thickness_mm, second.thickness_mm):
        notes.append(f"slices of {first.thickness_mm:.2g} and {second.thickness_mm:.2g} mm")
    if (second.date - first.date).days == 0:
        notes.append("both scans are of one day")
    return notes
