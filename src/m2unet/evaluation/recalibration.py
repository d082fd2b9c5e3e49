"""Maps that make probabilities mean what they say, fitted on validation scans.

*Logistic* recalibration changes slope and shift of the log-odds (Cox 1958; Platt 1999); *temperature* scaling the slope
alone (Guo et al. 2017, ICML); *isotonic* regression fits any rising step function (Zadrozny and Elkan 2002, KDD).
Validation sets are small, so slope and shift have a prior that pulls them to "no change": normal, with standard
deviation 0.5 for the logarithm of the slope and 1 for the shift. Two hundred scans drown it; ten do not, and then a set
that happens to be parted completely does not give probabilities of 0 and 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.evaluation.classification import check_scores

EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1 before log-odds are taken."""

SLOPE_SD, SHIFT_SD = 0.5, 1.0
"""Of the prior: of the slope's logarithm, and of the shift."""


def log_odds(probability: ArrayLike) -> NDArray[np.float64]:
    """Log-odds of probabilities, finite also for 0 and 1."""
    from scipy.special import logit

    found: NDArray[np.float64] = logit(np.clip(np.asarray(probability, dtype=np.float64), EDGE, 1 - EDGE))
    return found


def fit_logistic(severity: ArrayLike, probability: ArrayLike, *, shift: bool = True) -> tuple[float, float]:
    """Slope a and shift b such that ``expit(a * logit(p) + b)`` is calibrated.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe.
        probability: ``[n]``, in [0, 1].
        shift: False fits the slope alone, the inverse of a temperature.

    Returns:
        a, always positive, and b, 0 without a shift.

    Raises:
        M2UNetError: as :func:`m2unet.evaluation.classification.classification_metrics`.
    """
    from scipy.optimize import minimize

    truth, score = check_scores(severity, probability)
    odds = log_odds(score)

    def loss(values: NDArray[np.float64]) -> float:
        eta = np.exp(values[0]) * odds + (values[1] if shift else 0.0)
        prior = (values[0] / SLOPE_SD) ** 2 / 2 + ((values[1] / SHIFT_SD) ** 2 / 2 if shift else 0.0)
        return float(np.sum(np.logaddexp(0, eta) - truth * eta) + prior)

    found = minimize(loss, np.zeros(2 if shift else 1), method="L-BFGS-B").x
    return float(np.exp(found[0])), float(found[1]) if shift else 0.0


def fit_isotonic(severity: ArrayLike, probability: ArrayLike) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Points of the rising function that fits best; between them it is linear, beyond them constant.

    Returns:
        Probabilities, ascending, and what they become.

    Raises:
        M2UNetError: as :func:`fit_logistic`.
    """
    from sklearn.isotonic import IsotonicRegression

    truth, score = check_scores(severity, probability)
    fit = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(score, truth.astype(float))
    return tuple(map(float, fit.X_thresholds_)), tuple(map(float, fit.y_thresholds_))
