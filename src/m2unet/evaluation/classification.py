"""Severity metrics per scan and per patient; the positive class is *severe*.

Definitions (Sect. III of the paper names accuracy, precision, recall, F1 and AUC): with the decision
``probability >= threshold``, accuracy = (TP + TN) / all, precision = TP / (TP + FP), recall = sensitivity =
TP / (TP + FN), specificity = TN / (TN + FP), F1 = 2 TP / (2 TP + FP + FN). AUC is the Mann-Whitney statistic, a tie
counting one half. A ratio whose denominator is zero is None with a reason, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.errors import M2UNetError

METRIC_NAMES: tuple[str, ...] = ("accuracy", "precision", "recall", "f1", "auc", "specificity")
"""The figures a table shows, in its order; sensitivity is recall by another name."""

REASONS: Mapping[str, str] = {
    "accuracy": "there is no scan",
    "precision": "nothing was called severe",
    "recall": "there is no severe case",
    "f1": "there is no severe case and nothing was called severe",
    "auc": "only one class is present",
    "specificity": "there is no non-severe case",
}
"""Why each figure can be undefined."""


@dataclass(frozen=True)
class Counts:
    """The confusion table; positive = severe."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def total(self) -> int:
        """How many cases were counted."""
        return self.true_positive + self.false_positive + self.true_negative + self.false_negative


@dataclass(frozen=True)
class ClassificationMetrics:
    """Severity figures at one threshold.

    Attributes:
        accuracy, precision, recall, f1, auc, specificity: in [0, 1], or None where undefined.
        counts: the confusion table they come from.
        threshold: a case is called severe from this probability on.
        reasons: for each undefined figure, why.
    """

    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    auc: float | None
    specificity: float | None
    counts: Counts
    threshold: float
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def sensitivity(self) -> float | None:
        """Recall by its clinical name."""
        return self.recall

    def values(self) -> dict[str, float | None]:
        """The figures of :data:`METRIC_NAMES` by name."""
        return {name: getattr(self, name) for name in METRIC_NAMES}

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {
            **self.values(),
            "sensitivity": self.sensitivity,
            "threshold": self.threshold,
            "counts": asdict(self.counts),
            "reasons": dict(self.reasons),
        }


def classification_metrics(
    severity: ArrayLike, probability: ArrayLike, threshold: float = 0.5
) -> ClassificationMetrics:
    """Figures of one set of cases.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe.
        probability: ``[n]``, probability of severe, in [0, 1].
        threshold: called severe when ``probability >= threshold``.

    Raises:
        M2UNetError: no case, lengths differ, a label that is neither 0 nor 1, or a probability not finite in [0, 1].
    """
    truth, score = check_scores(severity, probability)
    called = score >= threshold
    counts = Counts(
        true_positive=int(np.sum(truth & called)),
        false_positive=int(np.sum(~truth & called)),
        true_negative=int(np.sum(~truth & ~called)),
        false_negative=int(np.sum(truth & ~called)),
    )
    values = _ratios(counts)
    values["auc"] = area_under_curve(truth, score)
    reasons = {name: REASONS[name] for name in METRIC_NAMES if values[name] is None}
    return ClassificationMetrics(**values, counts=counts, threshold=float(threshold), reasons=reasons)


def _ratios(counts: Counts) -> dict[str, float | None]:
    tp, fp, tn, fn = counts.true_positive, counts.false_positive, counts.true_negative, counts.false_negative
    return {
        "accuracy": _ratio(tp + tn, counts.total),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "specificity": _ratio(tn, tn + fp),
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def area_under_curve(severity: ArrayLike, score: ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a severe case scores above a non-severe one, ties counting half.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe.
        score: ``[n]``, any finite scores; larger means more severe.

    Returns:
        The area, or None when only one class is present.
    """
    from scipy.stats import rankdata

    truth = np.asarray(severity).astype(bool)
    positives = int(truth.sum())
    negatives = truth.size - positives
    if not positives or not negatives:
        return None
    ranks = rankdata(np.asarray(score, dtype=np.float64))
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


@dataclass(frozen=True)
class RocCurve:
    """Points of the receiver operating characteristic, from (0, 0) to (1, 1), one for each distinct score.

    Attributes:
        false_positive_rate: ``[m]``, 1 - specificity.
        true_positive_rate: ``[m]``, sensitivity.
        thresholds: ``[m]``, the decision ``score >= threshold`` that gives the point; the first is infinite.
    """

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    def to_dict(self) -> dict[str, list[float | None]]:
        """A JSON-ready mapping; the infinite threshold becomes None."""
        return {
            "false_positive_rate": self.false_positive_rate.tolist(),
            "true_positive_rate": self.true_positive_rate.tolist(),
            "thresholds": [t if np.isfinite(t) else None for t in self.thresholds.tolist()],
        }


def roc_points(severity: ArrayLike, probability: ArrayLike) -> RocCurve | None:
    """The ROC curve, or None when only one class is present.

    Raises:
        M2UNetError: as :func:`classification_metrics`.
    """
    truth, score = check_scores(severity, probability)
    if truth.all() or not truth.any():
        return None
    order = np.argsort(-score, kind="stable")
    truth, score = truth[order], score[order]
    last = np.append(np.flatnonzero(np.diff(score)), score.size - 1)  # a tie is one step
    hits = np.cumsum(truth)[last]
    alarms = last + 1 - hits
    return RocCurve(
        false_positive_rate=np.append(0.0, alarms / alarms[-1]),
        true_positive_rate=np.append(0.0, hits / hits[-1]),
        thresholds=np.append(np.inf, score[last]),
    )


def choose_threshold(
    severity: ArrayLike,
    probability: ArrayLike,
    rule: Literal["youden", "f1", "accuracy", "sensitivity"] = "youden",
    *,
    target: float = 0.95,
) -> float | None:
    """The operating point that is best by a rule; to be chosen on validation cases and then kept.

    Candidates lie midway between neighbouring distinct probabilities, so that a case near the threshold does not flip
    by rounding; among equals the one nearest to 0.5 wins. Calling every case alike is no candidate: where nothing
    separates the classes better than that, the probabilities hold no information to choose by.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe.
        probability: ``[n]``, in [0, 1].
        rule: ``youden`` (sensitivity + specificity), ``f1``, ``accuracy``, or ``sensitivity``: the highest threshold
            that reaches the target.
        target: least sensitivity under the last rule.

    Returns:
        The threshold, or None when only one class is present, or none separates the classes better than calling every
        case alike does: there is nothing to choose by.

    Raises:
        M2UNetError: as :func:`classification_metrics`.
    """
    truth, score = check_scores(severity, probability)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    levels = np.unique(score)
    candidates = (levels[1:] + levels[:-1]) / 2
    called = score[None, :] >= candidates[:, None]
    hits, alarms = called[:, truth].sum(axis=1), called[:, ~truth].sum(axis=1)
    youden = hits / positives - alarms / negatives
    informative = youden > 1e-12
    if rule == "sensitivity":
        informative &= hits / positives >= target - 1e-12
    if not informative.any():
        return None
    candidates, hits, alarms, youden = (values[informative] for values in (candidates, hits, alarms, youden))
    if rule == "sensitivity":
        return float(candidates[-1])
    if rule == "youden":
        merit = youden
    elif rule == "f1":
        merit = 2 * hits / (hits + alarms + positives)
    else:
        merit = (hits + negatives - alarms) / truth.size
    best = np.flatnonzero(np.isclose(merit, merit.max(), rtol=0, atol=1e-12))
    return float(candidates[best[np.argmin(np.abs(candidates[best] - 0.5))]])


@dataclass(frozen=True)
class PatientScores:
    """One row a patient.

    Attributes:
        patients: ``[p]``, identifiers in order of first appearance.
        severity: ``[p]`` int, 1 when any of the patient's scans is severe.
        probability: ``[p]``, mean over the patient's scans.
        scans: ``[p]`` int, how many scans were averaged.
    """

    patients: tuple[str, ...]
    severity: NDArray[np.int64]
    probability: NDArray[np.float64]
    scans: NDArray[np.int64]


def per_patient(patients: Sequence[str], severity: ArrayLike, probability: ArrayLike) -> PatientScores:
    """Gather scans into patients: mean probability, severe when any scan is.

    Args:
        patients: ``[n]`` patient identifier of each scan.
        severity: ``[n]``, 1 severe, 0 non-severe.
        probability: ``[n]``, in [0, 1].

    Raises:
        M2UNetError: as :func:`classification_metrics`, or when ``patients`` has another length.
    """
    truth, score = check_scores(severity, probability)
    index, names = group_patients(patients, truth.size)
    scans = np.bincount(index, minlength=len(names))
    return PatientScores(
        patients=names,
        severity=(np.bincount(index, weights=truth, minlength=len(names)) > 0).astype(np.int64),
        probability=np.bincount(index, weights=score, minlength=len(names)) / scans,
        scans=scans.astype(np.int64),
    )


def group_patients(patients: Sequence[str], scans: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Number the patients in order of first appearance.

    Args:
        patients: ``[n]`` identifier of each scan's patient.
        scans: the expected n.

    Returns:
        ``[n]`` patient number of each scan, and the identifiers by number.

    Raises:
        M2UNetError: when the length is not ``scans``.
    """
    if len(patients) != scans:
        raise M2UNetError("Each scan needs its patient", found=f"{len(patients)} patients", expected=f"{scans}")
    numbers: dict[str, int] = {}
    index = np.array([numbers.setdefault(str(patient), len(numbers)) for patient in patients], dtype=np.int64)
    return index, tuple(numbers)


def check_scores(severity: ArrayLike, probability: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Check labels and probabilities once, for every function of this room.

    Returns:
        ``[n]`` bool labels and ``[n]`` float64 probabilities.

    Raises:
        M2UNetError: no case, lengths differ, a label that is neither 0 nor 1, or a probability not finite in [0, 1].
    """
    truth, score = np.asarray(severity), np.asarray(probability, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != score.shape or truth.size == 0:
        raise M2UNetError(
            "Severity and probability must be two lists of one length, with at least one case",
            found=f"shapes {truth.shape} and {score.shape}",
        )
    if not np.isin(truth, (0, 1)).all():
        raise M2UNetError(
            "A severity label is neither 0 nor 1",
            found=sorted(set(truth.tolist()) - {0, 1}),
            mend="drop unlabelled scans",
        )
    if not np.all((score >= 0) & (score <= 1)):
        bad = int(np.sum(~((score >= 0) & (score <= 1))))
        raise M2UNetError("A probability is not a number between 0 and 1", found=f"{bad} of {score.size} values")
    return truth.astype(bool), score
