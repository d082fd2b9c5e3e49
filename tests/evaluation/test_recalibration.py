"""Recalibration against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from m2unet.errors import M2UNetError
from m2unet.evaluation.calibration import calibration
from m2unet.evaluation.recalibration import fit_isotonic, fit_logistic, log_odds


@pytest.fixture
def cases() -> tuple[np.ndarray, np.ndarray]:
    """Over-confident by a factor of two and too high by one."""
    rng = np.random.default_rng(1)
    odds = rng.normal(-0.5, 1.2, 5000)
    return (rng.random(5000) < expit(odds)).astype(int), expit(2 * odds + 1)


def test_many_cases_give_the_maximum_likelihood(cases: tuple[np.ndarray, np.ndarray]) -> None:
    severity, probability = cases
    slope, shift = fit_logistic(severity, probability)
    found = LogisticRegression(C=np.inf, tol=1e-8).fit(logit(probability)[:, None], severity)
    assert slope == pytest.approx(found.coef_[0, 0], abs=0.01)
    assert shift == pytest.approx(found.intercept_[0], abs=0.01)
    assert slope == pytest.approx(0.5, abs=0.05) and shift == pytest.approx(-0.5, abs=0.1)  # as made
    after = expit(slope * logit(probability) + shift)
    assert brier_score_loss(severity, after) < brier_score_loss(severity, probability) - 0.01
    assert calibration(severity, after).ece < 0.02 < calibration(severity, probability).ece


def test_a_temperature_has_no_shift(cases: tuple[np.ndarray, np.ndarray]) -> None:
    severity, probability = cases
    slope, shift = fit_logistic(severity, probability, shift=False)
    found = LogisticRegression(C=np.inf, tol=1e-8, fit_intercept=False).fit(logit(probability)[:, None], severity)
    assert shift == 0.0 and slope == pytest.approx(found.coef_[0, 0], abs=0.01)


def test_few_and_parted_cases_change_little() -> None:
    """Without the prior the slope would be infinite."""
    slope, shift = fit_logistic([0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.7, 0.8])
    assert 1 < slope < 2.5 and abs(shift) < 1
    slope, shift = fit_logistic([0, 1], [0.5, 0.5])
    assert slope == pytest.approx(1.0, abs=1e-3) and shift == pytest.approx(0.0, abs=1e-3)


def test_isotonic_is_scikit_learns(cases: tuple[np.ndarray, np.ndarray]) -> None:
    severity, probability = cases
    x, y = fit_isotonic(severity, probability)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(probability, severity)
    grid = np.linspace(0, 1, 101)
    np.testing.assert_allclose(np.interp(grid, x, y), theirs.predict(grid), atol=1e-9)
    # by hand: 0, 1, 0, 1 at rising scores pool the middle two to one half
    assert fit_isotonic([0, 1, 0, 1], [0.1, 0.4, 0.6, 0.9])[1] == pytest.approx((0.0, 0.5, 0.5, 1.0))


def test_certain_probabilities_have_finite_odds() -> None:
    assert np.isfinite(log_odds([0.0, 1.0])).all() and log_odds([0.5])[0] == 0.0
    with pytest.raises(M2UNetError):
        fit_logistic([], [])
