"""What reviewers ask for beside the paper's metrics: calibration, net benefit, abstention, subgroups, leakage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from m2unet.evaluation.calibration import Calibration, calibration
from m2unet.evaluation.decision import NetBenefit, Selection, decision_curve, net_benefit, selection
from m2unet.evaluation.intervals import Interval, classification_intervals
from m2unet.evaluation.subgroups import LEAST_PATIENTS, UNKNOWN, Subgroup, age_band, slice_band, subgroup_figures
from m2unet.evaluation.summary import DASH
from m2unet.inference.confidence import DEFAULT_THRESHOLD, NO_THRESHOLD, OWN_RULE, OperatingPoint
from m2unet.workflows.leakage import Leakage
from m2unet.workflows.scoring import ScanScore

TRAITS: Mapping[str, Callable[[ScanScore], str | None]] = {
    "site": lambda score: score.site,
    "scanner": lambda score: score.scanner,
    "slice thickness": lambda score: slice_band(score.slice_mm),
    "sex": lambda score: score.sex,
    "age": lambda score: age_band(score.age),
}
"""What subgroups are made by; slice thickness is the distance between slices."""

NOT_GIVEN: Mapping[str, str] = {
    "site": "the manifest gives no site",
    "scanner": "only DICOM headers name the scanner",
    "slice thickness": "no scan was read",
    "sex": "the manifest gives no sex",
    "age": "the manifest gives no age",
}

_SHOWN = ("recall", "specificity", "precision", "accuracy")


@dataclass(frozen=True)
class Appraisal:
    """Figures of the scans with a known and a predicted severity.

    Attributes:
        scans: how many.
        operating_point: the stored one; None where scans have thresholds of their own, as over several folds.
        at_point: sensitivity (``recall``), specificity, precision and accuracy there, with patient-clustered intervals.
        calibrated, raw: calibration of the calibrated and of the network's own probabilities.
        benefit: net benefit at the operating point; None where the threshold has no odds.
        curve: net benefit from 0.05 to 0.95.
        abstention: errors among the answered and the abstained; None where nothing was judged.
        abstained_for: how many scans for each kind of reason.
        subgroups: figures by trait.
        subgroup_reasons: for a trait without groups, why.
        leakage: see there.
        reason: why there are no figures of severity.
    """

    scans: int
    operating_point: OperatingPoint | None
    leakage: Leakage
    at_point: Mapping[str, Interval]
    calibrated: Calibration | None = None
    raw: Calibration | None = None
    benefit: NetBenefit | None = None
    curve: tuple[NetBenefit, ...] = ()
    abstention: Selection | None = None
    abstained_for: Mapping[str, int] | None = None
    subgroups: Mapping[str, tuple[Subgroup, ...]] | None = None
    subgroup_reasons: Mapping[str, str] | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {**asdict(self), "leakage": self.leakage.to_dict()}

    def flat(self) -> dict[str, float | None]:
        """The figures that folds are averaged over, by name."""
        found: dict[str, float | None] = {
            "sensitivity_at_point": self.at_point["recall"].estimate if self.at_point else None,
            "specificity_at_point": self.at_point["specificity"].estimate if self.at_point else None,
            "brier": None if self.calibrated is None else self.calibrated.brier,
            "ece": None if self.calibrated is None else self.calibrated.ece,
            "calibration_slope": None if self.calibrated is None else self.calibrated.slope,
            "calibration_intercept": None if self.calibrated is None else self.calibrated.intercept,
            "net_benefit": None if self.benefit is None else self.benefit.model,
            "abstained": None,
            "accuracy_answered": None,
        }
        if self.abstention is not None:
            found["abstained"] = self.abstention.abstained / max(self.scans, 1)
            found["accuracy_answered"] = self.abstention.accuracy_kept
        return found


def appraise(scores: Sequence[ScanScore], point: OperatingPoint | None, leakage: Leakage) -> Appraisal:
    """Appraise a model on scored scans.

    Args:
        scores: one a scan; those without a known or predicted severity are left out.
        point: the model's operating point; None if each scan carries its own threshold.
        leakage: what the comparison with the training scans found.
    """
    known = [s for s in scores if s.severity is not None and s.probability is not None]
    if not known:
        return Appraisal(0, point, leakage, {}, reason="no scan has both a known and a predicted severity")
    severity = [int(s.severity or 0) for s in known]
    probability = [float(s.probability or 0.0) for s in known]
    patients = [s.patient_id for s in known]
    thresholds = [DEFAULT_THRESHOLD if s.threshold is None else s.threshold for s in known]
    if point is not None:
        thresholds = [point.threshold] * len(known)
    called = [float(p >= t) for p, t in zip(probability, thresholds, strict=True)]
    intervals = classification_intervals(severity, called, patients)
    raw = [s.raw for s in known if s.raw is not None]
    judged = all(s.answer is not None for s in known)
    groups, reasons = _subgroups(known, severity, probability, patients, thresholds)
    return Appraisal(
        scans=len(known),
        operating_point=point,
        leakage=leakage,
        at_point={name: intervals[name] for name in _SHOWN},
        calibrated=calibration(severity, probability),
        raw=calibration(severity, raw) if len(raw) == len(known) else None,
        benefit=net_benefit(severity, probability, point.threshold) if point and 0 <= point.threshold < 1 else None,
        curve=decision_curve(severity, probability),
        abstention=selection(severity, called, [s.abstained for s in known]) if judged else None,
        abstained_for=dict(Counter(_kind(reason) for s in known for reason in s.reasons)),
        subgroups=groups,
        subgroup_reasons=reasons,
    )


def _kind(reason: str) -> str:
    kinds = {
        NO_THRESHOLD: "no threshold to decide by",
        "straddles": "interval over the threshold",
        "unlike": "unlike the training scans",
    }
    for word, kind in kinds.items():
        if word in reason:
            return kind
    return "quality check"


def _subgroups(
    known: Sequence[ScanScore],
    severity: Sequence[int],
    probability: Sequence[float],
    patients: Sequence[str],
    thresholds: Sequence[float],
) -> tuple[dict[str, tuple[Subgroup, ...]], dict[str, str]]:
    groups, reasons = {}, {}
    for trait, of in TRAITS.items():
        names = [of(score) for score in known]
        if not any(names):
            reasons[trait] = NOT_GIVEN[trait]
            continue
        groups[trait] = subgroup_figures(severity, probability, patients, names, threshold=thresholds)
    return groups, reasons


def appraisal_table(found: Appraisal) -> str:
    """The appraisal in Markdown, to follow the table of the paper's metrics."""
    lines = ["## Leakage", "", found.leakage.said.capitalize() + ".", ""]
    if found.leakage.found:
        lines[2] = f"**{lines[2]} The figures flatter the model.**"
    lines += ["## Operating point and calibration", ""]
    if found.reason is not None or found.calibrated is None:
        return "\n".join([*lines, f"None: {found.reason}.", ""])
    point = found.operating_point
    lines += ["Each fold has a threshold of its own." if point is None else _rule(point), ""]
    lines += ["| figure | value |", "| --- | ---: |"]
    names = {"recall": "sensitivity"}
    lines += [f"| {names.get(name, name)} | {interval.cell()} |" for name, interval in found.at_point.items()]
    for title, figures in (("calibrated", found.calibrated), ("as the network gives it", found.raw)):
        if figures is not None:
            lines += [
                f"| Brier score, {title} | {figures.brier:.3f} |",
                f"| expected calibration error, {title} | {figures.ece:.3f} |",
                f"| calibration slope, {title} | {_cell(figures.slope)} |",
                f"| calibration intercept, {title} | {_cell(figures.intercept)} |",
            ]
    if found.benefit is not None:
        lines += [
            f"| net benefit at {found.benefit.threshold:.3f} | {found.benefit.model:.3f} |",
            f"| net benefit of calling all severe | {found.benefit.treat_all:.3f} |",
        ]
    return "\n".join([*lines, "", *_abstention_lines(found), *_subgroup_lines(found)])


def _rule(point: OperatingPoint) -> str:
    how = f"chosen by {point.rule} on {point.scans} validation scans" if point.scans else f"fixed: {point.reason}"
    if point.rule.startswith(OWN_RULE):
        how = point.rule
    if point.low is not None and point.high is not None:
        how += f"; resampled, 95 % of them gave {point.low:.3f} to {point.high:.3f}"
    if not point.informative:
        how += "; every answer is left to a human" + (f": {point.reason}" if point.scans else "")
    return f"Severe from {point.threshold:.3f} on ({how})."


def _cell(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _abstention_lines(found: Appraisal) -> list[str]:
    kept = found.abstention
    if kept is None:
        return []
    reasons = ", ".join(f"{kind}: {count}" for kind, count in (found.abstained_for or {}).items()) or "none"
    return [
        "## Abstention",
        "",
        "| scans | count | wrong | accuracy |",
        "| --- | ---: | ---: | ---: |",
        f"| answered | {kept.kept} | {kept.errors_kept} | {_cell(kept.accuracy_kept)} |",
        f"| left to a human | {kept.abstained} | {kept.errors_abstained} | {_cell(kept.accuracy_abstained)} |",
        "",
        f"Reasons: {reasons}.",
        "",
    ]


def _subgroup_lines(found: Appraisal) -> list[str]:
    head = ["", "| group | scans | patients (severe) | sensitivity | specificity | AUC | Brier | intercept |"]
    lines = ["## Subgroups", "", f"A dash: fewer than {LEAST_PATIENTS} patients of a class the figure rests on.", ""]
    for trait, groups in (found.subgroups or {}).items():
        lines += [f"### By {trait}", *head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
        for group in groups:
            figures = (group.sensitivity, group.specificity, group.auc, group.brier, group.intercept)
            name = group.name if group.name != UNKNOWN else "not given"
            lines.append(
                f"| {name} | {group.scans} | {group.patients} ({group.severe_patients}) | "
                + " | ".join(_cell(value) for value in figures)
                + " |"
            )
        lines.append("")
    lines += [f"By {trait}: {reason}." for trait, reason in (found.subgroup_reasons or {}).items()]
    return [*lines, ""]
