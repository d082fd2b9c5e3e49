"""95 % intervals of a cohort's figures, that take patients, never scans, as independent and hold with few of them.

A percentile bootstrap over some ten patients covers far less than it states, and gives an interval without width where
every case is right. Hence, by kind of figure:

- *Proportions* (accuracy, sensitivity, specificity, precision): Wilson's score interval (1927, J Am Stat Assoc
  22:209-212) with an effective number of scans, from the design effect of patients as clusters and with the correction
  for few clusters of Korn and Graubard (1998, Surv Methodol 24:193-201).
- *F1* is a rising function of the proportion TP / (TP + FP + FN), whose interval it takes.
- *AUC*: Newcombe's score interval (2006, Stat Med 25:559-573, method 5), defined also where the AUC is 1, with
  effective numbers of scans of each class from Obuchowski's clustered variance (:mod:`m2unet.evaluation.auc`).
- *Means* (Dice, distances): Student's t over patients as clusters, on the log-odds or the logarithm where the figure is
  bounded.

Nothing is given, with a reason, where fewer than two patients bear on a figure, or where a mean does not vary.
``benchmarks/coverage.py`` measures how often the intervals hold the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.errors import M2UNetError
from m2unet.evaluation.auc import ClassSpread, area_and_spread
from m2unet.evaluation.classification import (
    METRIC_NAMES,
    REASONS,
    check_scores,
    classification_metrics,
    group_patients,
)
from m2unet.evaluation.summary import DASH

Limits = tuple[float, float]
"""Least and greatest possible value of a figure; infinite where there is none."""

Method = Literal["wilson", "newcombe", "t"]

FEW_PATIENTS = "fewer than two patients bear on the figure"
CONSTANT = "the figure is the same in every patient"


@dataclass(frozen=True)
class Interval:
    """A figure with its interval.

    Attributes:
        estimate: the figure on the cases as they are; None where undefined.
        low, high: ends of the interval; None where there is none.
        level: coverage aimed at, 0.95 for a 95 % interval.
        method: ``wilson``, ``newcombe`` or ``t``, see the module.
        patients: how many patients bear on the figure; of an AUC, of the rarer class.
        reason: why an end is None.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    method: Method
    patients: int
    reason: str | None = None

    def cell(self, digits: int = 3) -> str:
        """``0.953 [0.911, 0.980]``; a dash for what is undefined."""
        if self.estimate is None:
            return DASH
        if self.low is None or self.high is None:
            return f"{self.estimate:.{digits}f}"
        return f"{self.estimate:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


def classification_intervals(
    severity: ArrayLike,
    probability: ArrayLike,
    patients: Sequence[str],
    *,
    threshold: float = 0.5,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of all severity figures.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe.
        probability: ``[n]``, in [0, 1].
        patients: ``[n]`` patient of each scan.
        threshold: called severe from this probability on.
        level: coverage, between 0 and 1.

    Returns:
        By name of :data:`m2unet.evaluation.classification.METRIC_NAMES`.
    """
    truth, score = check_scores(severity, probability)
    index, names = group_patients(patients, truth.size)
    estimates = classification_metrics(severity, probability, threshold).values()
    called = score >= threshold
    everyone = np.ones(truth.size, dtype=bool)
    counted = {
        "accuracy": (truth == called, everyone),
        "precision": (truth & called, called),
        "recall": (truth & called, truth),
        "f1": (truth & called, truth | called),
        "specificity": (~truth & ~called, ~truth),
    }
    found: dict[str, Interval] = {}
    for name in METRIC_NAMES:
        if name == "auc":
            found[name] = auc_interval(truth, score, index, level=level)
            continue
        hits, of = counted[name]
        hits, of = (np.bincount(index[mask], minlength=len(names)) for mask in (hits, of))
        found[name] = proportion_interval(hits, of, level=level, undefined=REASONS[name])
        if name == "f1":
            found[name] = _f1(found[name], estimates[name])
    return found


def proportion_interval(
    hits: NDArray[np.int64], of: NDArray[np.int64], *, level: float = 0.95, undefined: str = "there is no case"
) -> Interval:
    """Wilson's interval of a proportion of scans, patients being clusters.

    Args:
        hits: ``[patients]`` scans of each patient that have the property.
        of: ``[patients]`` scans of each patient that count.
        level: coverage, between 0 and 1.
        undefined: the reason where no scan counts.
    """
    normal = _normal(level)
    hits, of = hits[of > 0], of[of > 0]
    patients, scans = int(of.size), int(of.sum())
    if not patients:
        return Interval(None, None, None, level, "wilson", 0, undefined)
    share = float(hits.sum() / scans)
    if patients < 2:
        return Interval(share, None, None, level, "wilson", patients, FEW_PATIENTS)
    clustered = patients / (patients - 1) * float(((hits - share * of) ** 2).sum()) / scans**2
    effective = _effective(scans, of, share * (1 - share) / scans, clustered)
    effective *= (_t(scans - 1, level) / _t(patients - 1, level)) ** 2
    middle = (share + normal**2 / (2 * effective)) / (1 + normal**2 / effective)
    reach = normal * np.sqrt(share * (1 - share) / effective + normal**2 / (4 * effective**2))
    reach /= 1 + normal**2 / effective
    low, high = max(0.0, float(middle - reach)), min(1.0, float(middle + reach))
    return Interval(share, min(low, share), max(high, share), level, "wilson", patients)


def auc_interval(
    truth: NDArray[np.bool_], score: NDArray[np.float64], index: NDArray[np.int64], *, level: float = 0.95
) -> Interval:
    """Newcombe's interval of the area under the ROC curve, patients being clusters.

    Args:
        truth: ``[n]``, whether severe.
        score: ``[n]``, larger means more severe.
        index: ``[n]`` patient number of each scan.
        level: coverage, between 0 and 1.
    """
    normal = _normal(level)
    if truth.all() or not truth.any():
        return Interval(None, None, None, level, "newcombe", 0, REASONS["auc"])
    area, spreads = area_and_spread(truth, score, index)
    patients = min(spread.patients for spread in spreads)
    if patients < 2:
        return Interval(area, None, None, level, "newcombe", patients, "a class has scans of only one patient")
    few = int(np.unique(index).size)
    narrowed = (_t(truth.size - 1, level) / _t(few - 1, level)) ** 2 if few > 1 else 1.0
    sizes = [_effective_class(spread) * narrowed for spread in spreads]
    low, high = _newcombe(area, sizes[0], sizes[1], normal)
    return Interval(area, low, high, level, "newcombe", patients)


def mean_intervals(
    values: Mapping[str, Sequence[float | None] | NDArray[np.float64]],
    patients: Sequence[str],
    *,
    level: float = 0.95,
    limits: Mapping[str, Limits] | None = None,
) -> dict[str, Interval]:
    """Intervals of means over scans, for example of each lobe's DSC.

    Args:
        values: by figure, ``[n]`` one value a scan; None or NaN where undefined, which the mean leaves out.
        patients: ``[n]`` patient of each scan.
        level: coverage, between 0 and 1.
        limits: of figures that have any, e.g. (0, 1) for a Dice coefficient: no interval leaves them.

    Raises:
        M2UNetError: a figure has another length than ``patients``.
    """
    index, _ = group_patients(patients, len(patients))
    result = {}
    for name, column in values.items():
        value = np.asarray(column, dtype=np.float64)
        if value.shape != index.shape:
            raise M2UNetError(f"Each scan needs its {name}", found=value.shape, expected=index.shape)
        result[name] = mean_interval(value, index, level=level, limits=(limits or {}).get(name))
    return result


def mean_interval(
    value: NDArray[np.float64], index: NDArray[np.int64], *, level: float = 0.95, limits: Limits | None = None
) -> Interval:
    """Student's interval of the mean over scans, patients being clusters.

    Args:
        value: ``[n]``, NaN where undefined.
        index: ``[n]`` patient number of each scan.
        level: coverage, between 0 and 1.
        limits: least and greatest possible value.
    """
    _normal(level)
    known = np.isfinite(value)
    if not known.any():
        return Interval(None, None, None, level, "t", 0, "the figure itself is undefined")
    mean = float(value[known].mean())
    sums = np.bincount(index[known], weights=value[known] - mean)
    patients = int(np.unique(index[known]).size)
    if patients < 2:
        return Interval(mean, None, None, level, "t", patients, FEW_PATIENTS)
    error = float(np.sqrt(patients / (patients - 1) * (sums**2).sum())) / int(known.sum())
    if error <= 1e-12 * max(1.0, abs(mean)):
        return Interval(mean, None, None, level, "t", patients, CONSTANT)
    low, high = _within(mean, _t(patients - 1, level) * error, limits)
    return Interval(mean, low, high, level, "t", patients)


def _within(mean: float, reach: float, limits: Limits | None) -> Limits:
    """Ends of an interval on the scale that its limits suggest: log-odds between 0 and 1, logarithm above 0."""
    if limits == (0.0, 1.0) and 0 < mean < 1:
        odds = np.log(mean) - np.log1p(-mean)
        step = reach / (mean * (1 - mean))
        low, high = (1 / (1 + np.exp(-(odds + sign * step))) for sign in (-1, 1))
        return float(low), float(high)
    if limits == (0.0, np.inf) and mean > 0:
        factor = float(np.exp(min(reach / mean, 700.0)))
        return mean / factor, mean * factor
    low, high = mean - reach, mean + reach
    return (low, high) if limits is None else (max(low, limits[0]), min(high, limits[1]))


def _f1(jaccard: Interval, estimate: float | None) -> Interval:
    ends = [None if end is None else 2 * end / (1 + end) for end in (jaccard.low, jaccard.high)]
    return Interval(estimate, ends[0], ends[1], jaccard.level, "wilson", jaccard.patients, jaccard.reason)


def _effective(scans: int, of: NDArray[np.int64], simple: float, clustered: float) -> float:
    """How many independent scans tell as much: from the scans' own number down to what wholly alike scans leave."""
    least = scans**2 / float((of.astype(np.float64) ** 2).sum())  # Kish 1965, Survey Sampling, sect. 8.2
    if simple <= 0:  # all alike: the design effect cannot be seen
        return least
    return scans if clustered <= 0 else float(np.clip(scans * simple / clustered, least, scans))


def _effective_class(spread: ClassSpread) -> float:
    return _effective(int(spread.sizes.sum()), spread.sizes, spread.simple, spread.clustered)


def _newcombe(area: float, severe: float, others: float, normal: float) -> Limits:
    """All areas from which the one found is no further than ``normal`` of their own standard errors."""
    from scipy.optimize import brentq

    half = (severe + others) / 2 - 1

    def excess(true: float) -> float:
        variance = true * (1 - true) * (1 + half * (1 - true) / (2 - true) + half * true / (1 + true))
        return (area - true) ** 2 - normal**2 * variance / (severe * others)

    low = 0.0 if area <= 0 else float(brentq(excess, 0.0, min(area, 1 - 1e-9)))
    high = 1.0 if area >= 1 else float(brentq(excess, max(area, 1e-9), 1.0))
    return low, high


def _normal(level: float) -> float:
    from scipy.special import ndtri

    if not 0 < level < 1:
        raise M2UNetError("The level of an interval lies between 0 and 1", found=level, expected="for example 0.95")
    return float(ndtri((1 + level) / 2))


def _t(degrees: int, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + level) / 2))
