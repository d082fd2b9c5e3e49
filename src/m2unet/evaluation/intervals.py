"""Bootstrap intervals that resample patients, never scans: a patient's scans rise and fall together.

The percentile bootstrap with whole clusters drawn with replacement (Field and Welsh 2007, J R Stat Soc B 69:369-390).
A resample in which a figure is undefined (no severe patient drawn, say) is counted and reported, not replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.errors import M2UNetError
from m2unet.evaluation.classification import METRIC_NAMES, check_scores, classification_metrics, group_patients
from m2unet.evaluation.summary import DASH

MetricFunction = Callable[[NDArray[np.int64]], Mapping[str, float | None]]
"""From scan numbers (repeats allowed) to named figures, None where undefined."""

_CHUNK_WEIGHTS = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval.

    Attributes:
        estimate: the figure on the cases as they are; None where undefined.
        low, high: ends of the percentile interval; None where it cannot be had.
        level: coverage aimed at, 0.95 for a 95 % interval.
        resamples: how many resamples were drawn.
        undefined: in how many of them the figure was undefined.
        reason: why an end is None.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    resamples: int
    undefined: int
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


def draw_counts(patients: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """How often each patient enters each resample.

    Args:
        patients: how many patients there are; each resample draws as many, with replacement.
        resamples: rows wanted.
        seed: of the generator.

    Returns:
        ``[resamples, patients]``; every row sums to ``patients``.
    """
    if patients < 1 or resamples < 1:
        raise M2UNetError(
            "A bootstrap needs at least one patient and one resample", found=f"{patients} and {resamples}"
        )
    return np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=resamples)


def bootstrap_intervals(
    patients: Sequence[str], metric: MetricFunction, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Intervals of any figures, by calling ``metric`` once a resample.

    Args:
        patients: ``[n]`` patient of each scan.
        metric: see :data:`MetricFunction`; called with ``arange(n)`` for the estimates.
        resamples, seed, level: of the bootstrap.

    Returns:
        One interval for each figure that ``metric`` names.
    """
    index, names = group_patients(patients, len(patients))
    counts = draw_counts(len(names), resamples, seed)
    scans = np.arange(index.size)
    estimates = metric(scans)
    drawn = {name: np.full(resamples, np.nan) for name in estimates}
    for row in range(resamples):
        for name, value in metric(np.repeat(scans, counts[row, index])).items():
            drawn[name][row] = np.nan if value is None else value
    return {name: percentile_interval(estimates[name], drawn[name], len(names), level) for name in estimates}


def classification_intervals(
    severity: ArrayLike,
    probability: ArrayLike,
    patients: Sequence[str],
    *,
    threshold: float = 0.5,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of all severity figures at once; the same resamples as :func:`bootstrap_intervals`, without a loop.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe.
        probability: ``[n]``, in [0, 1].
        patients: ``[n]`` patient of each scan.
        threshold: called severe from this probability on.
        resamples, seed, level: of the bootstrap.

    Returns:
        By name of :data:`m2unet.evaluation.classification.METRIC_NAMES`.
    """
    truth, score = check_scores(severity, probability)
    index, names = group_patients(patients, truth.size)
    estimates = classification_metrics(severity, probability, threshold).values()
    drawn = resampled_classification(truth, score, index, draw_counts(len(names), resamples, seed), threshold)
    return {name: percentile_interval(estimates[name], drawn[name], len(names), level) for name in METRIC_NAMES}


def mean_intervals(
    values: Mapping[str, Sequence[float | None] | NDArray[np.float64]],
    patients: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of means over scans, for example of each lobe's DSC.

    Args:
        values: by figure, ``[n]`` one value a scan; None or NaN where undefined, which the mean leaves out.
        patients: ``[n]`` patient of each scan.
        resamples, seed, level: of the bootstrap.

    Raises:
        M2UNetError: a figure has another length than ``patients``.
    """
    index, names = group_patients(patients, len(patients))
    counts = draw_counts(len(names), resamples, seed)
    result = {}
    for name, column in values.items():
        value = np.asarray(column, dtype=np.float64)
        if value.shape != index.shape:
            raise M2UNetError(f"Each scan needs its {name}", found=value.shape, expected=index.shape)
        known = np.isfinite(value)
        estimate = float(value[known].mean()) if known.any() else None
        result[name] = percentile_interval(estimate, resampled_mean(value, index, counts), len(names), level)
    return result


def resampled_mean(
    value: NDArray[np.float64], index: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The mean in each resample, NaN where none is defined.

    Args:
        value: ``[n]``, NaN where undefined.
        index: ``[n]`` patient number of each scan.
        counts: ``[resamples, patients]`` of :func:`draw_counts`.
    """
    known, patients = np.isfinite(value), counts.shape[1]
    sums = np.bincount(index[known], weights=value[known], minlength=patients)
    sizes = np.bincount(index[known], minlength=patients)
    return _divide(counts @ sums, counts @ sizes)


def resampled_classification(
    truth: NDArray[np.bool_],
    score: NDArray[np.float64],
    index: NDArray[np.int64],
    counts: NDArray[np.int64],
    threshold: float,
) -> dict[str, NDArray[np.float64]]:
    """Every severity figure in each resample, NaN where undefined.

    Args:
        truth, score: ``[n]`` labels and probabilities.
        index: ``[n]`` patient number of each scan.
        counts: ``[resamples, patients]`` of :func:`draw_counts`.
        threshold: called severe from this probability on.

    Returns:
        By name of ``METRIC_NAMES``, ``[resamples]``.
    """
    called = score >= threshold
    patients = counts.shape[1]

    def total(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        return counts @ np.bincount(index[mask], minlength=patients)

    tp, fp, tn, fn = total(truth & called), total(~truth & called), total(~truth & ~called), total(truth & ~called)
    return {
        "accuracy": _divide(tp + tn, tp + fp + tn + fn),
        "precision": _divide(tp, tp + fp),
        "recall": _divide(tp, tp + fn),
        "f1": _divide(2 * tp, 2 * tp + fp + fn),
        "auc": np.concatenate([_weighted_auc(truth, score, weights) for weights in _weights(counts, index)]),
        "specificity": _divide(tn, tn + fp),
    }


def _weights(counts: NDArray[np.int64], index: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    rows = max(1, _CHUNK_WEIGHTS // index.size)
    for start in range(0, len(counts), rows):
        yield counts[start : start + rows][:, index].astype(np.float64)


def _weighted_auc(
    truth: NDArray[np.bool_], score: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AUC with each case counted by its weight; ``weights`` is ``[rows, n]``."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(score[order]) > 0))  # one group a distinct score
    severe = np.add.reduceat(weights[:, order] * truth[order], starts, axis=1)
    others = np.add.reduceat(weights[:, order] * ~truth[order], starts, axis=1)
    below = np.cumsum(others, axis=1) - others / 2
    return _divide((severe * below).sum(axis=1), severe.sum(axis=1) * others.sum(axis=1))


def _divide(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    result = np.full(part.shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def percentile_interval(estimate: float | None, drawn: NDArray[np.float64], patients: int, level: float) -> Interval:
    """Gather one figure's resamples into an interval.

    Args:
        estimate: the figure on the cases as they are.
        drawn: ``[resamples]``, NaN where undefined.
        patients: how many patients were resampled; one patient gives no interval.
        level: coverage, between 0 and 1.
    """
    if not 0 < level < 1:
        raise M2UNetError("The level of an interval lies between 0 and 1", found=level, expected="for example 0.95")
    known = drawn[np.isfinite(drawn)]
    undefined = int(drawn.size - known.size)
    reason = None
    if estimate is None:
        reason = "the figure itself is undefined"
    elif patients < 2:
        reason = "there is only one patient to resample"
    elif known.size < drawn.size / 2:
        reason = f"the figure is undefined in {undefined} of {drawn.size} resamples"
    if reason is not None:
        return Interval(estimate, None, None, level, drawn.size, undefined, reason)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, drawn.size, undefined)
