"""Do the probabilities mean what they say? Brier score, calibration error, slope and intercept.

Brier 1950 (Mon Weather Rev 78:1-3); expected calibration error with equal-width bins, Naeini et al. 2015 (AAAI);
calibration slope and calibration-in-the-large after Cox 1958 and Van Calster et al. 2019 (BMC Medicine 17:230).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.evaluation.classification import check_scores

_EDGE = 1e-6


@dataclass(frozen=True)
class Bin:
    """One bin of the reliability diagram.

    Attributes:
        low, high: its edges; a bin includes its lower one, the last also its upper one.
        count: cases in it.
        mean_probability, share_severe: None in an empty bin.
    """

    low: float
    high: float
    count: int
    mean_probability: float | None
    share_severe: float | None


@dataclass(frozen=True)
class Calibration:
    """Calibration figures of one set of cases.

    Attributes:
        brier: mean squared error of the probability, 0 is best.
        ece: expected calibration error, in [0, 1].
        slope: of the logistic regression of the label on the log-odds; 1 is ideal, below 1 is over-confident.
        intercept: calibration-in-the-large: the shift of the log-odds that makes the mean probability right; 0 is
            ideal.
        bins: the reliability diagram.
        reason: why slope or intercept is None.
    """

    brier: float
    ece: float
    slope: float | None
    intercept: float | None
    bins: tuple[Bin, ...]
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


def calibration(severity: ArrayLike, probability: ArrayLike, bins: int = 10) -> Calibration:
    """Calibration of probabilities against labels.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe.
        probability: ``[n]``, in [0, 1]; log-odds are taken after clipping to [1e-6, 1 - 1e-6].
        bins: equal-width bins of the reliability diagram.

    Raises:
        M2UNetError: as :func:`m2unet.evaluation.classification.classification_metrics`.
    """
    truth, score = check_scores(severity, probability)
    diagram = _bins(truth, score, bins)
    gaps = [b.count * abs(b.mean_probability - b.share_severe) for b in diagram if b.count]  # type: ignore[operator]
    slope, intercept, reason = _logistic(truth, score)
    return Calibration(
        brier=float(np.mean((score - truth) ** 2)),
        ece=float(sum(gaps) / truth.size),
        slope=slope,
        intercept=intercept,
        bins=diagram,
        reason=reason,
    )


def _bins(truth: NDArray[np.bool_], score: NDArray[np.float64], bins: int) -> tuple[Bin, ...]:
    edges = np.linspace(0, 1, bins + 1)
    # a probability on an edge, such as 0.3 of ten bins, belongs above it, though 0.3 * 10 and the edge are both rounded
    place = np.clip(np.floor(score * bins + 1e-9).astype(np.int64), 0, bins - 1)
    result = []
    for number in range(bins):
        held = place == number
        count = int(held.sum())
        mean = float(score[held].mean()) if count else None
        share = float(truth[held].mean()) if count else None
        result.append(Bin(float(edges[number]), float(edges[number + 1]), count, mean, share))
    return tuple(result)


def _logistic(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[float | None, float | None, str | None]:
    from scipy.optimize import brentq
    from scipy.special import expit, logit
    from sklearn.linear_model import LogisticRegression

    if truth.all() or not truth.any():
        return None, None, "only one class is present"
    odds = logit(np.clip(score, _EDGE, 1 - _EDGE))
    intercept = float(brentq(lambda shift: float(np.sum(expit(odds + shift)) - truth.sum()), -50, 50))
    if np.ptp(odds) < 1e-9:
        return None, intercept, "the probabilities are all the same, so the slope is undefined"
    low, high = odds[~truth], odds[truth]
    if low.max() <= high.min() or high.max() <= low.min():
        return None, intercept, "the probabilities part the classes completely, so the slope has no finite value"
    fit = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(odds[:, None], truth)
    return float(fit.coef_[0, 0]), intercept, None
