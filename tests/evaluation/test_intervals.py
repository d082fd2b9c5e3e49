"""Intervals with patients as clusters: against statsmodels' and published formulas, by simulation, and at the edges."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from m2unet.errors import M2UNetError
from m2unet.evaluation.auc import auc_covariance
from m2unet.evaluation.classification import METRIC_NAMES, classification_metrics
from m2unet.evaluation.intervals import (
    CONSTANT,
    FEW_PATIENTS,
    auc_interval,
    classification_intervals,
    mean_intervals,
    proportion_interval,
)


def cohort(seed: int, patients: int = 40) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
    """Patients of one to four scans; probabilities rounded, so that ties occur."""
    rng = np.random.default_rng(seed)
    scans = rng.integers(1, 5, patients)
    severity = np.repeat(rng.random(patients) < 0.35, scans).astype(np.int64)
    level = np.repeat(rng.normal(0, 0.2, patients), scans) + 0.35 + 0.25 * severity
    probability = np.clip(np.round(level + rng.normal(0, 0.1, level.size), 1), 0, 1)
    return [f"p{n}" for n in np.repeat(np.arange(patients), scans)], severity, probability


@pytest.mark.parametrize(("hits", "of"), [(7, 9), (9, 9), (0, 12), (81, 263)])
def test_one_scan_a_patient_is_wilsons_interval(hits: int, of: int) -> None:
    """SciPy's Wilson interval without continuity correction; 81 of 263 is Newcombe's own example (1998)."""
    right = (np.arange(of) < hits).astype(np.int64)
    ours = proportion_interval(right, np.ones(of, dtype=np.int64))
    theirs = scipy.stats.binomtest(hits, of).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))
    if (hits, of) == (81, 263):
        assert (round(ours.low or 0, 4), round(ours.high or 0, 4)) == (0.2553, 0.3662)


def test_scans_that_are_wholly_alike_count_once_a_patient() -> None:
    """Eight copies of each patient's scan tell no more than one: the effective number is that of the patients."""
    right = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1])
    once = proportion_interval(right, np.ones(12, dtype=np.int64))
    copied = proportion_interval(8 * right, np.full(12, 8))
    assert copied.estimate == once.estimate and copied.patients == 12
    assert once.low is not None and once.high is not None and copied.low is not None and copied.high is not None
    assert copied.high - copied.low >= 0.95 * (once.high - once.low)


def test_every_severity_figure_has_an_interval_that_holds_it() -> None:
    for seed in range(5):
        patients, severity, probability = cohort(seed)
        found = classification_intervals(severity, probability, patients, threshold=0.6)
        own = classification_metrics(severity, probability, 0.6).values()
        assert tuple(found) == METRIC_NAMES
        for name, interval in found.items():
            assert interval.estimate == pytest.approx(own[name])
            assert interval.low is not None and interval.high is not None and interval.estimate is not None
            assert 0 <= interval.low <= interval.estimate <= interval.high <= 1 and interval.high > interval.low


def test_the_interval_of_an_area_solves_newcombes_equation() -> None:
    """Both ends lie as far from the area as the normal quantile times the standard error that they themselves imply."""
    rng = np.random.default_rng(3)
    truth = np.arange(60) < 20
    score = rng.normal(size=60) + truth
    found = auc_interval(truth, score, np.arange(60))
    assert found.low is not None and found.high is not None and found.estimate is not None
    for end in (found.low, found.high):
        half = (20 + 40) / 2 - 1
        variance = end * (1 - end) * (1 + half * (1 - end) / (2 - end) + half * end / (1 + end)) / (20 * 40)
        assert abs(found.estimate - end) / np.sqrt(variance) == pytest.approx(1.959964, rel=1e-4)
    _, covariance = auc_covariance(truth, score[None])
    assert (found.high - found.low) / (2 * 1.96 * np.sqrt(covariance[0, 0])) == pytest.approx(1, rel=0.3)


def test_a_perfect_cohort_has_an_interval_with_width() -> None:
    found = classification_intervals([1, 1, 1, 0, 0, 0, 0], [0.9, 0.8, 0.7, 0.1, 0.2, 0.3, 0.1], list("abcdefg"))
    for name in METRIC_NAMES:
        low, high = found[name].low, found[name].high
        assert found[name].estimate == 1.0 and high == pytest.approx(1.0) and low is not None and low < 0.8


def test_one_patient_of_a_class_gives_no_interval() -> None:
    found = classification_intervals([1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3], list("abcd"))
    assert found["recall"].estimate == 1.0 and found["recall"].low is found["recall"].high is None
    assert found["recall"].reason == FEW_PATIENTS and found["recall"].cell() == "1.000"
    assert found["auc"].low is None and "only one patient" in str(found["auc"].reason)
    assert found["specificity"].low is not None
    single = classification_intervals([1, 0], [0.9, 0.2], ["a", "a"])["accuracy"]
    assert (single.estimate, single.low, single.reason) == (1.0, None, FEW_PATIENTS)
    none = classification_intervals([0, 0], [0.1, 0.2], ["a", "b"])
    assert none["recall"].estimate is None and none["recall"].reason == "there is no severe case"


def test_a_mean_of_one_scan_a_patient_is_students_interval() -> None:
    values = np.random.default_rng(1).normal(0.8, 0.05, 12)
    found = mean_intervals({"x": values}, [str(n) for n in range(12)])["x"]
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))
    assert found.patients == 12 and found.method == "t"


def test_scans_of_one_patient_are_not_independent() -> None:
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(0, 1, 30), 8)
    by_patient = mean_intervals({"x": values}, [str(n) for n in np.repeat(np.arange(30), 8)])["x"]
    by_scan = mean_intervals({"x": values}, [str(n) for n in range(240)])["x"]
    widths = [i.high - i.low for i in (by_patient, by_scan) if i.high is not None and i.low is not None]
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(8), rel=0.15)


def test_no_interval_leaves_the_limits_of_its_figure() -> None:
    values = [0.99, 0.98, 0.5]
    found = mean_intervals(
        {"dsc": values, "mm": [1.0, 2.0, 30.0]}, list("abc"), limits={"dsc": (0, 1), "mm": (0, np.inf)}
    )
    for name, most in (("dsc", 1.0), ("mm", np.inf)):
        low, high = found[name].low, found[name].high
        assert low is not None and high is not None and 0 < low < (found[name].estimate or 0) < high < most


@pytest.mark.parametrize("patients", [10, 30])
def test_intervals_hold_the_truth_as_often_as_they_say(patients: int) -> None:
    """Simulated cohorts with scans alike within patients; docs/evaluation.md shows more of them."""
    held: dict[str, list[bool]] = {"accuracy": [], "specificity": [], "dsc": []}
    for seed in range(300):
        rng = np.random.default_rng([patients, seed])
        index = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
        own = rng.normal(size=patients)[index]
        level = np.sqrt(0.8) * own + np.sqrt(0.2) * rng.normal(size=index.size)
        severity = (rng.random(patients) < 0.3)[index]
        score = scipy.stats.norm.cdf(level + severity - 0.5)
        names = [str(n) for n in index]
        found = classification_intervals(severity, score, names) | mean_intervals({"dsc": level}, names)
        truth = {"accuracy": scipy.stats.norm.cdf(0.5), "specificity": scipy.stats.norm.cdf(0.5), "dsc": 0.0}
        for name, right in truth.items():
            low, high = found[name].low, found[name].high
            assert low is not None and high is not None
            held[name].append(bool(low <= right <= high))
    for name, hits in held.items():
        assert 0.91 <= np.mean(hits) <= 0.985, name


def test_undefined_values_are_left_out() -> None:
    patients = ["a", "a", "b", "c"]
    found = mean_intervals({"dsc": [0.8, None, None, float("nan")], "sen": [None] * 4}, patients)
    assert found["dsc"].estimate == 0.8 and found["dsc"].low is None and found["dsc"].reason == FEW_PATIENTS
    assert found["sen"].estimate is found["sen"].low is None
    assert found["sen"].reason == "the figure itself is undefined"
    constant = mean_intervals({"dsc": [0.9, 0.9, 0.9, 0.9]}, patients)["dsc"]
    assert constant.estimate == pytest.approx(0.9) and constant.low is None and constant.reason == CONSTANT
    with pytest.raises(M2UNetError, match="needs its dsc"):
        mean_intervals({"dsc": [0.8]}, patients)
    with pytest.raises(M2UNetError, match="between 0 and 1"):
        mean_intervals({"dsc": [0.8] * 4}, patients, level=95.0)


def test_cells_and_json() -> None:
    found = proportion_interval(np.array([1, 1, 0]), np.array([1, 1, 1]))
    assert found.cell(2) == f"0.67 [{found.low:.2f}, {found.high:.2f}]"
    undefined = proportion_interval(np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64))
    assert len(undefined.cell()) == 1 and undefined.reason == "there is no case"
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["method"] == "wilson"
