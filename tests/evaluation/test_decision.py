"""Net benefit and selection, worked by hand and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from m2unet.errors import M2UNetError
from m2unet.evaluation.classification import choose_threshold
from m2unet.evaluation.decision import THRESHOLDS, decision_curve, net_benefit, selection


def test_net_benefit_by_hand() -> None:
    # Ten cases, four severe. At 0.25: three severe and two others are called. 3/10 - 2/10 * (0.25 / 0.75) = 0.2333.
    severity = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    probability = [0.9, 0.6, 0.3, 0.1, 0.8, 0.25, 0.2, 0.1, 0.1, 0.0]
    found = net_benefit(severity, probability, 0.25)
    assert found.model == pytest.approx(0.3 - 0.2 / 3)
    assert found.treat_all == pytest.approx(0.4 - 0.6 / 3)
    assert net_benefit(severity, probability, 0.0).model == pytest.approx(0.4)  # all are called, alarms cost nothing
    # At the prevalence, calling everybody severe is worth nothing.
    assert net_benefit(severity, probability, 0.4).treat_all == pytest.approx(0.0)


def test_a_perfect_model_is_worth_the_prevalence() -> None:
    curve = decision_curve([1, 0, 0, 0], [1.0, 0.0, 0.0, 0.0])
    assert [point.threshold for point in curve] == list(THRESHOLDS)
    assert all(point.model == pytest.approx(0.25) and point.model >= point.treat_all for point in curve)


def test_net_benefit_from_scikit_learns_confusion_matrix() -> None:
    rng = np.random.default_rng(0)
    severity, probability = rng.integers(0, 2, 200), rng.random(200)
    for point in decision_curve(severity, probability):
        _, alarms, _, hits = confusion_matrix(severity, probability >= point.threshold).ravel()
        odds = point.threshold / (1 - point.threshold)
        assert point.model == pytest.approx(hits / 200 - alarms / 200 * odds)


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_threshold_without_odds_is_refused(threshold: float) -> None:
    with pytest.raises(M2UNetError, match="threshold"):
        net_benefit([0, 1], [0.1, 0.9], threshold)


def test_selection_by_hand() -> None:
    # Two errors among three abstained, one among five kept. Fisher, one-sided: C(3,2)C(5,1)/C(8,3) + C(3,3)/C(8,3).
    severity = [1, 1, 0, 0, 0, 1, 1, 0]
    called = [0, 0, 0, 1, 0, 1, 1, 0]
    abstained = [True, True, True, False, False, False, False, False]
    found = selection(severity, called, abstained)
    assert (found.kept, found.abstained, found.errors_kept, found.errors_abstained) == (5, 3, 1, 2)
    assert found.accuracy_kept == pytest.approx(0.8) and found.accuracy_abstained == pytest.approx(1 / 3)
    assert found.p_value == pytest.approx(15 / 56 + 1 / 56)
    everything = selection(severity, called, [False] * 8)
    assert everything.accuracy_abstained is None and everything.p_value is None


def test_a_target_sensitivity_takes_the_highest_threshold_that_reaches_it() -> None:
    severity = [0, 0, 0, 1, 0, 1, 1, 1]
    probability = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert choose_threshold(severity, probability, "sensitivity", target=0.75) == pytest.approx(0.55)
    assert choose_threshold(severity, probability, "sensitivity", target=0.8) == pytest.approx(0.35)
    assert choose_threshold(severity, probability, "sensitivity", target=1.0) == pytest.approx(0.35)
    assert choose_threshold([0, 0], [0.1, 0.2], "sensitivity") is None
