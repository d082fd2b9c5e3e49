"""Is one method better than another on the same scans? Paired tests that respect patients.

- AUC: the test of DeLong and Obuchowski (:mod:`m2unet.evaluation.auc`).
- Means over scans (Dice, distances): the sign-flip test over patients (Fisher 1935, The Design of Experiments,
  sect. 21), exact with few of them: with 3 patients no p-value lies below 0.25, with 6 none below 0.03.
- Figures of severity: a permutation test that exchanges the two methods' answers within patients.

A bootstrap's p-value, by contrast, is far too small with few patients. Intervals are Student's over patients, by the
jackknife for figures that are no means; tests and intervals rest on different ideas and may disagree at the margin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.errors import M2UNetError
from m2unet.evaluation.auc import auc_covariance
from m2unet.evaluation.classification import METRIC_NAMES, check_scores, classification_metrics, group_patients
from m2unet.evaluation.intervals import CONSTANT, FEW_PATIENTS, mean_interval

PERMUTATIONS = 9999
"""Random ones; where there are no more of them, all are taken, and the p-value is exact."""

_CHUNK = 1 << 20
_TIE = 1e-12

Test = Literal["delong", "sign-flip", "permutation"]


@dataclass(frozen=True)
class Difference:
    """A paired difference, second method minus first.

    Attributes:
        first, second: each method's own figure.
        difference: second - first.
        low, high: interval of the difference; None where there is none.
        p_value: two-sided, of no difference; None where there is none.
        level: coverage of the interval.
        method: the test.
        exact: whether the p-value counts every arrangement; False of random ones, and of DeLong's test.
        reason: why a figure is None.
    """

    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    level: float
    method: Test
    exact: bool = False
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


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


def compare_means(
    first: Sequence[float | None] | NDArray[np.float64],
    second: Sequence[float | None] | NDArray[np.float64],
    patients: Sequence[str],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Compare means over scans, such as DSC, by the sign-flip test; scans where either is undefined are left out.

    Args:
        first, second: ``[n]`` one value a scan, None or NaN where undefined.
        patients: ``[n]`` patient of each scan.
        permutations, seed: of random sign flips, where there are too many to take all.
        level: coverage of the interval.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    index, _ = group_patients(patients, one.size)
    if one.shape != two.shape:
        raise M2UNetError("Paired values need one length", found=f"{one.shape} and {two.shape}")
    both = np.isfinite(one) & np.isfinite(two)
    if not both.any():
        nothing = "no scan has a value of both methods"
        return Difference(None, None, None, None, None, None, level, "sign-flip", reason=nothing)
    gap = np.where(both, two - one, np.nan)
    interval = mean_interval(gap, index, level=level)
    p_value: float | None = None
    exact, reason = False, interval.reason
    if reason != FEW_PATIENTS:
        sums = np.bincount(index[both], weights=gap[both])
        p_value, exact = _permuted(lambda flips: (1 - 2 * flips) @ sums, sums.size, permutations, seed)
    return Difference(
        first=float(one[both].mean()),
        second=float(two[both].mean()),
        difference=interval.estimate,
        low=interval.low,
        high=interval.high,
        p_value=p_value,
        level=level,
        method="sign-flip",
        exact=exact,
        reason=reason,
    )


def compare_classification(
    severity: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    patients: Sequence[str],
    *,
    thresholds: tuple[float, float] = (0.5, 0.5),
    permutations: int = 1999,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Compare every severity figure by exchanging the two methods' answers within patients.

    For the AUC the exchanged answers are ranks within each method, so that scores of different scales compare.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe.
        first, second: ``[n]`` probabilities of each method.
        patients: ``[n]`` patient of each scan.
        thresholds: each method's operating point.
        permutations, seed: of random exchanges, where there are too many to take all.
        level: coverage of the intervals, Student's by the jackknife over patients.

    Returns:
        By name of ``METRIC_NAMES``.
    """
    truth, one = check_scores(severity, first)
    _, two = check_scores(severity, second)
    index, names = group_patients(patients, truth.size)
    own = [classification_metrics(truth, s, t).values() for s, t in zip((one, two), thresholds, strict=True)]
    called = np.stack([one >= thresholds[0], two >= thresholds[1]])
    ranks = np.stack([_ranks(one), _ranks(two)])
    left_out = 1.0 - np.eye(len(names))
    without = [weighted_classification(truth, c, r, index, left_out) for c, r in zip(called, ranks, strict=True)]
    found = {}
    for name in METRIC_NAMES:
        if own[0][name] is None or own[1][name] is None:
            unknown = "a method's own figure is undefined"
            found[name] = Difference(
                own[0][name], own[1][name], None, None, None, None, level, "permutation", reason=unknown
            )
            continue

        def exchanged(swaps: NDArray[np.float64], name: str = name) -> NDArray[np.float64]:
            swapped, answers = swaps[:, index].astype(bool), ranks if name == "auc" else called
            one, two = (_figure(name, truth, np.where(swapped, answers[1 - n], answers[n])) for n in (0, 1))
            return two - one

        p_value, exact = _permuted(exchanged, len(names), permutations, seed) if len(names) > 1 else (None, False)
        gap = float(own[1][name] or 0.0) - float(own[0][name] or 0.0)
        low, high, reason = _jackknife(gap, without[1][name] - without[0][name], level)
        found[name] = Difference(
            own[0][name], own[1][name], gap, low, high, p_value, level, "permutation", exact, reason
        )
    return found


def _permuted(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], patients: int, permutations: int, seed: int
) -> tuple[float, bool]:
    """Two-sided p-value of a statistic under exchanges of patients, and whether all exchanges were taken.

    Args:
        statistic: of ``[rows, patients]`` exchanges, 0 or 1; the first row given is of none. NaN counts as extreme.
        patients: how many may be exchanged, each alone.
        permutations: the most random exchanges; where all are no more, all are taken.
        seed: of random ones.
    """
    exact = patients < 63 and 2**patients <= permutations + 1
    if exact:
        exchanges = (np.arange(2**patients)[:, None] >> np.arange(patients) & 1).astype(np.float64)
    else:
        drawn = np.random.default_rng(seed).integers(0, 2, size=(permutations, patients))
        exchanges = np.concatenate([np.zeros((1, patients)), drawn])
    rows = max(1, _CHUNK // max(patients, 1))
    values = np.concatenate([statistic(exchanges[at : at + rows]) for at in range(0, len(exchanges), rows)])
    sizes = np.abs(values)
    extreme = ~(sizes < sizes[0] - _TIE * max(1.0, float(sizes[0])))  # the arrangement itself is one of them
    return float(np.mean(extreme)), exact


def _jackknife(gap: float, without: NDArray[np.float64], level: float) -> tuple[float | None, float | None, str | None]:
    """Student's interval from the figure without each patient in turn (Efron and Stein 1981, Ann Stat 9:586-596)."""
    from scipy.special import stdtrit

    patients = without.size
    if patients < 2:
        return None, None, FEW_PATIENTS
    if not np.isfinite(without).all():
        return None, None, "the difference rests on a single patient: without that one it is undefined"
    error = float(np.sqrt((patients - 1) / patients * ((without - without.mean()) ** 2).sum()))
    if error <= _TIE:
        return None, None, CONSTANT
    reach = float(stdtrit(patients - 1, (1 + level) / 2)) * error
    return max(-1.0, gap - reach), min(1.0, gap + reach), None


def _ranks(score: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import rankdata

    return np.asarray(rankdata(score), dtype=np.float64)


def _figure(name: str, truth: NDArray[np.bool_], answers: NDArray[Any]) -> NDArray[np.float64]:
    """One figure of many answers to the same scans, ``[rows]``; NaN where undefined.

    Args:
        name: of ``METRIC_NAMES``.
        truth: ``[n]``.
        answers: ``[rows, n]``, scores for the AUC, else whether called severe.
    """
    if name == "auc":
        from scipy.stats import rankdata

        severe, others = int(truth.sum()), int((~truth).sum())
        placed = rankdata(answers, axis=1)[:, truth].sum(axis=1)
        return np.asarray((placed - severe * (severe + 1) / 2) / (severe * others))
    return _ratios(
        tp=(answers & truth).sum(axis=1),
        fp=(answers & ~truth).sum(axis=1),
        tn=(~answers & ~truth).sum(axis=1),
        fn=(~answers & truth).sum(axis=1),
    )[name]


def weighted_classification(
    truth: NDArray[np.bool_],
    called: NDArray[np.bool_],
    ranks: NDArray[np.float64],
    index: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Every severity figure with each patient counted by a weight, NaN where undefined.

    Args:
        truth, called: ``[n]``, whether severe, and whether called so.
        ranks: ``[n]`` scores of any scale.
        index: ``[n]`` patient number of each scan.
        weights: ``[rows, patients]``.

    Returns:
        By name of ``METRIC_NAMES``, ``[rows]``.
    """
    patients = weights.shape[1]

    def total(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        return weights @ np.bincount(index[mask], minlength=patients).astype(np.float64)

    figures = _ratios(
        tp=total(truth & called), fp=total(~truth & called), tn=total(~truth & ~called), fn=total(truth & ~called)
    )
    rows = max(1, _CHUNK // index.size)
    figures["auc"] = np.concatenate(
        [_weighted_auc(truth, ranks, weights[at : at + rows][:, index]) for at in range(0, len(weights), rows)]
    )
    return figures


def _ratios(tp: NDArray[Any], fp: NDArray[Any], tn: NDArray[Any], fn: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    return {
        "accuracy": _divide(tp + tn, tp + fp + tn + fn),
        "precision": _divide(tp, tp + fp),
        "recall": _divide(tp, tp + fn),
        "f1": _divide(2 * tp, 2 * tp + fp + fn),
        "specificity": _divide(tn, tn + fp),
    }


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
    np.divide(part, whole, out=result, where=whole > 1e-9)  # weights that cancel leave rounding
    return result
