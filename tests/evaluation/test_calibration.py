"""Calibration against scikit-learn and SciPy."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from m2unet.evaluation.calibration import calibration


@pytest.fixture
def cases() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    odds = rng.normal(-0.5, 1.5, 400)
    return (rng.random(400) < expit(odds)).astype(int), expit(1.8 * odds + 0.4)  # over-confident, too high


def test_brier_and_bins_agree_with_scikit_learn(cases: tuple[np.ndarray, np.ndarray]) -> None:
    severity, probability = cases
    found = calibration(severity, probability)
    assert found.brier == pytest.approx(brier_score_loss(severity, probability))
    share, mean = calibration_curve(severity, probability, n_bins=10)
    held = [b for b in found.bins if b.count]
    np.testing.assert_allclose([b.share_severe for b in held], share)
    np.testing.assert_allclose([b.mean_probability for b in held], mean)
    assert found.ece == pytest.approx(
        sum(b.count * abs(s - m) for b, s, m in zip(held, share, mean, strict=True)) / 400
    )


def test_slope_and_intercept_are_the_likelihoods_own(cases: tuple[np.ndarray, np.ndarray]) -> None:
    severity, probability = cases
    odds = logit(probability)

    def loss(eta: np.ndarray) -> float:
        return float(np.sum(np.logaddexp(0, eta) - severity * eta))

    both = minimize(lambda w: loss(w[0] + w[1] * odds), [0.0, 1.0]).x
    shift = minimize(lambda w: loss(w[0] + odds), [0.0]).x
    found = calibration(severity, probability)
    assert found.slope == pytest.approx(both[1], abs=1e-3)
    assert found.intercept == pytest.approx(shift[0], abs=1e-4)
    assert found.slope is not None and found.slope < 0.8  # over-confident, as made


def test_perfect_and_undefined_cases() -> None:
    certain = calibration([0, 1, 1], [0.0, 1.0, 1.0])
    assert (certain.brier, certain.ece, certain.slope) == (0.0, 0.0, None)
    assert "part the classes" in str(certain.reason)
    assert certain.bins[9].count == 2 and certain.bins[5].share_severe is None
    single = calibration([0, 0], [0.3, 0.1])
    assert single.slope is single.intercept is None and single.reason == "only one class is present"
    json.dumps(single.to_dict(), allow_nan=False)


def test_a_probability_on_an_edge_belongs_to_the_bin_above() -> None:
    """0.3, 0.6 and 0.7 times ten lie below 3, 6 and 7 or their edges above them, by rounding."""
    for number in range(11):
        bins = calibration([0, 1], [number / 10] * 2).bins
        assert [b.count for b in bins].index(2) == min(number, 9)
    assert calibration([0, 1], [0.25, 0.3]).ece == pytest.approx(0.475)


def test_probabilities_that_are_all_the_same_have_no_slope() -> None:
    found = calibration([0, 1, 0, 1], [0.4] * 4)
    assert found.slope is None and found.reason is not None and "all the same" in found.reason
