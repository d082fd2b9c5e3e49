"""Severity figures against scikit-learn and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from m2unet.errors import M2UNetError
from m2unet.evaluation.classification import (
    METRIC_NAMES,
    area_under_curve,
    choose_threshold,
    classification_metrics,
    per_patient,
    roc_points,
)

# Few distinct probabilities, so that ties are common.
CASES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=1, max_size=40)


def test_a_hand_worked_table() -> None:
    severity = [1, 1, 1, 0, 0, 0, 0, 0]
    probability = [0.9, 0.5, 0.2, 0.7, 0.4, 0.3, 0.1, 0.0]
    found = classification_metrics(severity, probability)
    assert (found.counts.true_positive, found.counts.false_positive) == (2, 1)
    assert (found.counts.true_negative, found.counts.false_negative) == (4, 1)
    assert found.accuracy == 6 / 8
    assert found.precision == found.recall == found.sensitivity == pytest.approx(2 / 3)
    assert found.specificity == 4 / 5
    assert found.f1 == pytest.approx(2 / 3)
    assert found.auc == pytest.approx((5 + 4 + 2) / 15)  # non-severe cases below each severe one
    assert found.reasons == {}


@settings(max_examples=40, deadline=None)
@given(CASES, st.integers(0, 9))
def test_figures_agree_with_scikit_learn(cases: list[tuple[int, int]], cut: int) -> None:
    severity, level = np.array(cases).T
    probability, threshold = level / 8, cut / 8
    called = (probability >= threshold).astype(int)
    found = classification_metrics(severity, probability, threshold)
    assert found.accuracy == pytest.approx(reference.accuracy_score(severity, called))
    expected = {
        "precision": reference.precision_score(severity, called, zero_division=np.nan),
        "recall": reference.recall_score(severity, called, zero_division=np.nan),
        "f1": reference.f1_score(severity, called, zero_division=np.nan),
        "specificity": reference.recall_score(1 - severity, 1 - called, zero_division=np.nan),
    }
    for name, value in expected.items():
        ours = getattr(found, name)
        assert (ours is None) == bool(np.isnan(value)), name
        assert (name in found.reasons) == (ours is None)
        assert ours is None or ours == pytest.approx(value), name
    if len(set(severity.tolist())) == 2:
        assert found.auc == pytest.approx(reference.roc_auc_score(severity, probability))
    else:
        assert found.auc is None and found.reasons["auc"] == "only one class is present"


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_the_curve_agrees_with_scikit_learn(cases: list[tuple[int, int]]) -> None:
    severity, level = np.array(cases).T
    curve = roc_points(severity, level / 8)
    if len(set(severity.tolist())) < 2:
        assert curve is None
        return
    assert curve is not None
    fpr, tpr, thresholds = reference.roc_curve(severity, level / 8, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, fpr)
    np.testing.assert_allclose(curve.true_positive_rate, tpr)
    np.testing.assert_allclose(curve.thresholds, thresholds)
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == pytest.approx(area_under_curve(severity, level))
    assert json.loads(json.dumps(curve.to_dict(), allow_nan=False))["thresholds"][0] is None


def test_undefined_figures_are_none_with_a_reason_and_json_ready() -> None:
    found = classification_metrics([0, 0], [0.1, 0.2])
    assert found.accuracy == 1.0 and found.specificity == 1.0
    assert found.precision is found.recall is found.f1 is found.auc is None
    assert set(found.reasons) == {"precision", "recall", "f1", "auc"}
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["counts"]["true_negative"] == 2
    assert set(found.values()) == set(METRIC_NAMES)
    assert found.counts.total == 2


def test_no_severe_case_but_one_false_alarm() -> None:
    found = classification_metrics([0, 0], [0.1, 0.9])
    assert found.f1 == 0.0 and found.precision == 0.0 and found.recall is None


@pytest.mark.parametrize(
    ("severity", "probability", "says"),
    [
        ([], [], "at least one case"),
        ([1, 0], [0.5], "one length"),
        ([1, -1], [0.5, 0.5], "neither 0 nor 1"),
        ([1, 0], [0.5, float("nan")], "between 0 and 1"),
        ([1, 0], [0.5, 1.2], "between 0 and 1"),
    ],
)
def test_bad_input_is_refused(severity: list[int], probability: list[float], says: str) -> None:
    with pytest.raises(M2UNetError, match=says):
        classification_metrics(severity, probability)


def test_patients_take_the_mean_probability_and_any_label() -> None:
    found = per_patient(["b", "a", "b", "b"], [0, 0, 1, 0], [0.2, 0.7, 0.4, 0.9])
    assert found.patients == ("b", "a")
    assert found.severity.tolist() == [1, 0]
    assert found.scans.tolist() == [3, 1]
    np.testing.assert_allclose(found.probability, [0.5, 0.7])
    with pytest.raises(M2UNetError, match="needs its patient"):
        per_patient(["a"], [0, 1], [0.2, 0.7])


@settings(max_examples=15, deadline=None)
@given(CASES, st.sampled_from(["youden", "f1", "accuracy"]))
def test_the_chosen_threshold_is_best_of_those_that_separate(cases: list[tuple[int, int]], rule: str) -> None:
    severity, level = np.array(cases).T
    chosen = choose_threshold(severity, level / 8, rule)  # type: ignore[arg-type]

    def separates(threshold: float) -> bool:
        called = level / 8 >= threshold
        return called[severity == 1].mean() > called[severity == 0].mean()

    both = len(set(severity.tolist())) == 2
    grid = [t for t in np.linspace(0, 1.05, 22) if both and separates(t)]
    if not grid:
        assert chosen is None
        return
    assert chosen is not None and separates(chosen)

    def merit(threshold: float) -> float:
        called = (level / 8 >= threshold).astype(int)
        if rule == "youden":
            return reference.balanced_accuracy_score(severity, called)
        if rule == "f1":
            return reference.f1_score(severity, called, zero_division=0)
        return reference.accuracy_score(severity, called)

    assert merit(chosen) == pytest.approx(max(map(merit, grid)))


@pytest.mark.parametrize("rule", ["youden", "f1", "accuracy", "sensitivity"])
def test_scores_without_information_give_no_threshold(rule: str) -> None:
    assert choose_threshold([0, 1, 0, 1], [0.3] * 4, rule) is None  # type: ignore[arg-type]
    assert choose_threshold([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9], rule) is None  # type: ignore[arg-type]
