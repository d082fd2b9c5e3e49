"""Figures by subgroup; small groups say so."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, recall_score, roc_auc_score

from m2unet.errors import M2UNetError
from m2unet.evaluation.subgroups import age_band, slice_band, subgroup_figures


def test_figures_of_a_group_are_those_of_its_scans() -> None:
    rng = np.random.default_rng(0)
    severity = rng.integers(0, 2, 90)
    probability = np.clip(0.3 * severity + rng.random(90) * 0.7, 0, 1)
    groups = ["north"] * 60 + ["south"] * 28 + [None] * 2
    patients = [f"p{i // 2}" for i in range(90)]
    north, south, unknown = subgroup_figures(severity, probability, patients, groups, threshold=0.6)
    assert (north.name, north.scans, north.patients) == ("north", 60, 30)
    truth, score = severity[:60], probability[:60]
    assert north.sensitivity == pytest.approx(recall_score(truth, score >= 0.6))
    assert north.specificity == pytest.approx(recall_score(1 - truth, score < 0.6))
    assert north.auc == pytest.approx(roc_auc_score(truth, score))
    assert north.brier == pytest.approx(brier_score_loss(truth, score)) and not north.reasons
    assert south.scans == 28 and unknown.name == "unknown"
    assert unknown.auc is None and unknown.sensitivity is None and unknown.brier is None
    assert "5 are needed" in unknown.reasons["auc"]
    json.dumps([north.to_dict(), unknown.to_dict()], allow_nan=False)


def test_many_scans_of_few_patients_are_a_small_group() -> None:
    (found,) = subgroup_figures([1, 0] * 20, [0.9, 0.1] * 20, ["a", "b"] * 20, ["x"] * 40, threshold=0.5)
    assert found.scans == 40 and found.patients == 2 and found.severe_patients == 1
    assert found.sensitivity is None and found.specificity is None and set(found.reasons) >= {"sensitivity", "brier"}


def test_a_class_that_is_too_small_takes_only_its_figures() -> None:
    severity = [1, 1, *[0] * 8]
    (found,) = subgroup_figures(severity, [0.5] * 10, [str(i) for i in range(10)], ["x"] * 10, threshold=0.6)
    assert found.sensitivity is None and found.specificity == 1.0 and found.brier is not None and found.auc is None


def test_bands() -> None:
    assert [age_band(age) for age in (None, 0, 39.9, 40, 80, 101)] == [
        None,
        "under 40",
        "under 40",
        "40 to 59",
        "80 and over",
        "80 and over",
    ]
    assert [slice_band(mm) for mm in (None, 0.6, 1.5, 1.6, 5, 10)] == [
        None,
        "up to 1.5 mm",
        "up to 1.5 mm",
        "over 1.5 to 3 mm",
        "over 3 to 5 mm",
        "over 5 mm",
    ]


def test_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(M2UNetError, match="group"):
        subgroup_figures([0, 1], [0.1, 0.9], ["a", "b"], ["x"], threshold=0.5)


def test_a_patient_of_both_classes_counts_once() -> None:
    severity, patients = [1, 0] * 3 + [0], ["a", "a", "b", "b", "c", "c", "d"]
    (found,) = subgroup_figures(severity, [0.5] * 7, patients, ["x"] * 7, threshold=0.5)
    assert found.patients == 4 and found.brier is None and found.reasons["brier"] == "4 patients; 5 are needed"
