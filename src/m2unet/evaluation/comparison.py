"""Is one method better than another on the same scans? Paired tests that respect patients.

AUC: DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44:837-845) with midranks, and with several scans a patient the
clustered covariance of Obuchowski 1997 (Biometrics 53:567-578), which is DeLong's when every patient has one scan.
Anything else: the paired bootstrap over patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.errors import M2UNetError
from m2unet.evaluation.classification import METRIC_NAMES, check_scores, classification_metrics, group_patients
from m2unet.evaluation.intervals import (
    draw_counts,
    percentile_interval,
    resampled_classification,
    resampled_mean,
)


@dataclass(frozen=True)
class Difference:
    """A paired difference, second method minus first.

    Attributes:
        first, second: each method's own figure.
        difference: second - first.
        low, high: interval of the difference; None where it cannot be had.
        p_value: two-sided, of no difference; None where it cannot be had.
        level: coverage of the interval.
        method: ``delong`` or ``bootstrap``.
        undefined: resamples in which either figure was undefined; 0 for DeLong.
        reason: why a figure is None.
    """

    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    level: float
    method: str
    undefined: int = 0
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


def auc_covariance(
    severity: ArrayLike, scores: NDArray[np.float64], patients: Sequence[str] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The areas of several score lists on the same cases, and their covariance.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe; at least two of each.
        scores: ``[k, n]``, one row a method.
        patients: ``[n]`` patient of each scan; None takes every scan as a patient of its own.

    Returns:
        ``[k]`` areas and ``[k, k]`` covariance.

    Raises:
        M2UNetError: fewer than two patients with severe or with non-severe scans.
    """
    from scipy.stats import rankdata

    truth = np.asarray(severity).astype(bool)
    names = [str(n) for n in range(truth.size)] if patients is None else patients
    index, _ = group_patients(names, truth.size)
    groups = [np.unique(index[mask]).size for mask in (truth, ~truth)]
    if min(groups) < 2:
        raise M2UNetError("An AUC's variance needs two patients of each class", found=f"{groups[0]} and {groups[1]}")
    severe, others = int(truth.sum()), int((~truth).sum())
    ranks = rankdata(scores, axis=1)
    placed = np.empty(scores.shape)  # share of the other class that lies on the right side of each case
    placed[:, truth] = (ranks[:, truth] - rankdata(scores[:, truth], axis=1)) / others
    placed[:, ~truth] = 1 - (ranks[:, ~truth] - rankdata(scores[:, ~truth], axis=1)) / severe
    areas = placed[:, truth].mean(axis=1)
    rest = placed - areas[:, None]
    total = index.max() + 1
    by_patient = [
        np.stack([np.bincount(index[mask], weights=row[mask], minlength=total) for row in rest])
        for mask in (truth, ~truth)
    ]
    within = [
        size / (size - 1) * (sums @ sums.T) / count**2
        for sums, size, count in zip(by_patient, groups, (severe, others), strict=True)
    ]
    across = total / (total - 1) * (by_patient[0] @ by_patient[1].T) / (severe * others)
    return areas, within[0] + within[1] + across + across.T


def delong_test(
    severity: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    patients: Sequence[str] | None = None,
    level: float = 0.95,
) -> Difference:
    """Test the difference of two AUCs measured on the same cases.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe.
        first, second: ``[n]`` probabilities of each method.
        patients: ``[n]`` patient of each scan; None takes every scan as independent.
        level: coverage of the interval, which is normal.

    Returns:
        The difference; its p-value is None with a reason when too few patients or a difference without variance
        leave nothing to test.
    """
    from scipy.stats import norm

    truth, one = check_scores(severity, first)
    _, two = check_scores(severity, second)
    try:
        areas, covariance = auc_covariance(truth, np.stack([one, two]), patients)
    except M2UNetError as error:
        own = [classification_metrics(truth, score).auc for score in (one, two)]
        return Difference(own[0], own[1], None, None, None, None, level, "delong", reason=error.problem)
    difference = float(areas[1] - areas[0])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= 1e-15:
        reason = "the two methods' areas do not vary against each other"
        return Difference(
            float(areas[0]), float(areas[1]), difference, None, None, None, level, "delong", reason=reason
        )
    error_sd = float(np.sqrt(variance))
    reach = float(norm.ppf((1 + level) / 2)) * error_sd
    return Difference(
        first=float(areas[0]),
        second=float(areas[1]),
        difference=difference,
        low=difference - reach,
        high=difference + reach,
        p_value=float(2 * norm.sf(abs(difference) / error_sd)),
        level=level,
        method="delong",
    )


def compare_classification(
    severity: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    patients: Sequence[str],
    *,
    thresholds: tuple[float, float] = (0.5, 0.5),
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Paired bootstrap over patients of every severity figure.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe.
        first, second: ``[n]`` probabilities of each method.
        patients: ``[n]`` patient of each scan.
        thresholds: each method's operating point.
        resamples, seed, level: of the bootstrap.

    Returns:
        By name of ``METRIC_NAMES``.
    """
    truth, one = check_scores(severity, first)
    _, two = check_scores(severity, second)
    index, names = group_patients(patients, truth.size)
    counts = draw_counts(len(names), resamples, seed)
    own = [classification_metrics(truth, s, t).values() for s, t in zip((one, two), thresholds, strict=True)]
    drawn = [resampled_classification(truth, s, index, counts, t) for s, t in zip((one, two), thresholds, strict=True)]
    return {
        name: _difference(own[0][name], own[1][name], drawn[1][name] - drawn[0][name], len(names), level)
        for name in METRIC_NAMES
    }


def compare_means(
    first: Sequence[float | None] | NDArray[np.float64],
    second: Sequence[float | None] | NDArray[np.float64],
    patients: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Paired bootstrap over patients of a mean over scans, such as DSC; scans where either is undefined are left out.

    Args:
        first, second: ``[n]`` one value a scan, None or NaN where undefined.
        patients: ``[n]`` patient of each scan.
        resamples, seed, level: of the bootstrap.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    index, names = group_patients(patients, one.size)
    if one.shape != two.shape:
        raise M2UNetError("Paired values need one length", found=f"{one.shape} and {two.shape}")
    both = np.isfinite(one) & np.isfinite(two)
    gap = np.where(both, two - one, np.nan)
    counts = draw_counts(len(names), resamples, seed)
    means = [float(v[both].mean()) if both.any() else None for v in (one, two)]
    return _difference(means[0], means[1], resampled_mean(gap, index, counts), np.unique(index[both]).size, level)


def _difference(
    first: float | None, second: float | None, drawn: NDArray[np.float64], patients: int, level: float
) -> Difference:
    gap = None if first is None or second is None else second - first
    interval = percentile_interval(gap, drawn, patients, level)
    p_value = None
    if interval.reason is None:
        known = drawn[np.isfinite(drawn)]
        tail = min(int(np.sum(known <= 0)), int(np.sum(known >= 0)))
        p_value = min(1.0, 2 * (tail + 1) / (known.size + 1))  # never 0: Davison and Hinkley 1997, sect. 4.2
    return Difference(
        first=first,
        second=second,
        difference=gap,
        low=interval.low,
        high=interval.high,
        p_value=p_value,
        level=level,
        method="bootstrap",
        undefined=interval.undefined,
        reason=interval.reason,
    )
