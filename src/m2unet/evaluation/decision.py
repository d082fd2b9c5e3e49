"""What a decision is worth: net benefit, decision curves, and figures of the scans a model abstains from.

Net benefit (Vickers and Elkin 2006, Med Decis Making 26:565-574): with the decision ``probability >= t``,
``TP / n - FP / n * t / (1 - t)``. The threshold t says how many false alarms one finds worth a severe case found:
at 0.2, four. Calling everybody severe has ``p - (1 - p) * t / (1 - t)`` with prevalence p, calling nobody severe 0; a
model is of use at t only above both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from m2unet.errors import M2UNetError
from m2unet.evaluation.classification import check_scores

THRESHOLDS: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Of a decision curve: 0.05 to 0.95."""


@dataclass(frozen=True)
class NetBenefit:
    """Net benefit at one threshold, per case.

    Attributes:
        threshold: called severe from this probability on.
        model, treat_all: of the model, and of calling everybody severe; of calling nobody severe it is 0.
    """

    threshold: float
    model: float
    treat_all: float

    def to_dict(self) -> dict[str, float]:
        """A JSON-ready mapping."""
        return asdict(self)


def net_benefit(severity: ArrayLike, probability: ArrayLike, threshold: float) -> NetBenefit:
    """Net benefit at one threshold.

    Raises:
        M2UNetError: a threshold not between 0 and 1, or as
            :func:`m2unet.evaluation.classification.classification_metrics`.
    """
    if not 0 <= threshold < 1:
        raise M2UNetError("A net benefit needs a threshold from 0 to below 1", found=threshold)
    truth, score = check_scores(severity, probability)
    called = score >= threshold
    odds = threshold / (1 - threshold)
    hits, alarms = float(np.mean(truth & called)), float(np.mean(~truth & called))
    return NetBenefit(threshold, hits - alarms * odds, float(truth.mean() - (~truth).mean() * odds))


def decision_curve(
    severity: ArrayLike, probability: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[NetBenefit, ...]:
    """Net benefit over thresholds."""
    return tuple(net_benefit(severity, probability, threshold) for threshold in thresholds)


@dataclass(frozen=True)
class Selection:
    """What becomes of the errors when a model abstains from some scans.

    Attributes:
        kept, abstained: scans answered, and left to a human.
        errors_kept, errors_abstained: wrong decisions among them, had all been answered.
        accuracy_kept, accuracy_abstained: None where there is no scan.
        p_value: one-sided Fisher test that errors are not more frequent among the abstained; None if a side is empty.
    """

    kept: int
    abstained: int
    errors_kept: int
    errors_abstained: int
    accuracy_kept: float | None
    accuracy_abstained: float | None
    p_value: float | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


def selection(severity: ArrayLike, called: ArrayLike, abstained: ArrayLike) -> Selection:
    """Errors among the scans answered and those abstained from.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe.
        called: ``[n]``, what the model would say, 1 severe.
        abstained: ``[n]`` bool.
    """
    from scipy.stats import fisher_exact

    wrong = np.asarray(severity).astype(bool) != np.asarray(called).astype(bool)
    left = np.asarray(abstained).astype(bool)
    bad_left, bad_kept = int(np.sum(wrong & left)), int(np.sum(wrong & ~left))
    count_left, count_kept = int(left.sum()), int((~left).sum())
    p_value = None
    if count_left and count_kept:
        table = np.array([[bad_left, count_left - bad_left], [bad_kept, count_kept - bad_kept]])
        p_value = float(fisher_exact(table, alternative="greater").pvalue)
    return Selection(
        kept=count_kept,
        abstained=count_left,
        errors_kept=bad_kept,
        errors_abstained=bad_left,
        accuracy_kept=1 - bad_kept / count_kept if count_kept else None,
        accuracy_abstained=1 - bad_left / count_left if count_left else None,
        p_value=p_value,
    )
