"""Paired comparisons: against definitions by brute force, SciPy's permutation tests, and under a true null."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from m2unet.errors import M2UNetError
from m2unet.evaluation.auc import auc_covariance
from m2unet.evaluation.classification import METRIC_NAMES, area_under_curve, classification_metrics
from m2unet.evaluation.comparison import compare_classification, compare_means, delong_test
from m2unet.evaluation.intervals import CONSTANT, FEW_PATIENTS


def two_methods(seed: int, scans: int = 60) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and two correlated, tied score lists."""
    rng = np.random.default_rng(seed)
    severity = (np.arange(scans) % 3 == 0).astype(np.int64)
    shared = rng.normal(0, 1, scans) + 0.8 * severity
    scores = np.stack([shared + rng.normal(0, noise, scans) for noise in (0.4, 1.0)])
    return severity, np.clip(np.round(scipy.stats.norm.cdf(scores), 1), 0, 1)


def by_definition(severity: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance of the areas from the kernel of all pairs, as DeLong et al. 1988 define it."""
    severe, others = scores[:, severity == 1], scores[:, severity == 0]
    kernel = (severe[:, :, None] > others[:, None, :]) + 0.5 * (severe[:, :, None] == others[:, None, :])
    first, second = np.cov(kernel.mean(axis=2)), np.cov(kernel.mean(axis=1))
    return first / severe.shape[1] + second / others.shape[1]


def test_a_hand_worked_example() -> None:
    # severe 3, 1 against others 2, 0: placements 1, 1/2 and 1/2, 1; each class has sample variance 1/8, so the
    # variance of the area is 1/8/2 + 1/8/2 = 1/8. The second method parts the classes: area 1, variance 0.
    areas, covariance = auc_covariance([1, 1, 0, 0], np.array([[3.0, 1.0, 2.0, 0.0], [3.0, 2.0, 1.0, 0.0]]))
    np.testing.assert_allclose(areas, [0.75, 1.0])
    np.testing.assert_allclose(covariance, [[1 / 8, 0.0], [0.0, 0.0]], atol=1e-15)
    found = delong_test([1, 1, 0, 0], [0.9, 0.3, 0.6, 0.0], [0.9, 0.6, 0.3, 0.0])
    z = 0.25 / np.sqrt(1 / 8)
    assert found.p_value == pytest.approx(2 * scipy.stats.norm.sf(z))
    assert found.low == pytest.approx(0.25 - 1.959964 * np.sqrt(1 / 8))


@pytest.mark.parametrize("seed", range(5))
def test_the_covariance_is_the_definitions(seed: int) -> None:
    severity, scores = two_methods(seed)
    areas, covariance = auc_covariance(severity, scores)
    np.testing.assert_allclose(covariance, by_definition(severity, scores), rtol=1e-10)
    for area, score in zip(areas, scores, strict=True):
        assert area == pytest.approx(area_under_curve(severity, score))


def test_clusters_with_both_classes_agree_with_resampling_patients() -> None:
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(150), 4)
    severity = (rng.random(600) < np.repeat(rng.uniform(0.1, 0.9, 150), 4)).astype(np.int64)
    shared = np.repeat(rng.normal(0, 1, 150), 4)
    scores = np.stack([0.9 * severity + shared + rng.normal(0, 0.6, 600) for _ in range(2)])
    _, covariance = auc_covariance(severity, scores, [str(p) for p in patients])
    drawn = []
    for counts in np.random.default_rng(1).multinomial(150, np.full(150, 1 / 150), size=600):
        rows = np.repeat(np.arange(600), counts[patients])
        drawn.append([area_under_curve(severity[rows], score[rows]) for score in scores])
    np.testing.assert_allclose(covariance, np.cov(np.array(drawn).T), rtol=0.2)
    _, as_if_independent = auc_covariance(severity, scores)
    assert abs(covariance[0, 0] / as_if_independent[0, 0] - 1) > 0.2  # so the clusters matter in this example


def test_repeating_every_scan_changes_nothing_when_patients_are_known() -> None:
    severity, scores = two_methods(7)
    patients = [str(n) for n in range(severity.size)]
    once = delong_test(severity, *scores, patients)
    thrice = delong_test(np.repeat(severity, 3), *np.repeat(scores, 3, axis=1), list(np.repeat(patients, 3)))
    assert thrice.p_value == pytest.approx(once.p_value)
    assert thrice.low == pytest.approx(once.low)
    assert delong_test(severity, *scores).p_value == pytest.approx(once.p_value)


def test_p_values_are_uniform_when_methods_are_alike() -> None:
    rng = np.random.default_rng(11)
    severity = (np.arange(120) % 2).astype(np.int64)
    found = []
    for _ in range(300):
        scores = scipy.stats.norm.cdf(rng.normal(0, 1, (2, 120)) + rng.normal(0, 0.7, 120) + severity)
        found.append(delong_test(severity, *scores).p_value)
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.01


def test_what_cannot_be_tested_is_none_with_a_reason() -> None:
    severity, scores = two_methods(0)
    same = delong_test(severity, scores[0], scores[0])
    assert same.difference == 0.0 and same.p_value is None and same.reason
    few = delong_test([1, 0, 0], [0.4, 0.5, 0.1], [0.6, 0.5, 0.1])
    assert (few.first, few.second, few.p_value) == (0.5, 1.0, None)
    assert "two patients of each class" in str(few.reason)
    assert json.loads(json.dumps(few.to_dict(), allow_nan=False))["method"] == "delong"


def test_exchanging_answers_agrees_with_delong() -> None:
    severity, scores = two_methods(3, scans=240)
    patients = [str(n) for n in range(240)]
    exact = delong_test(severity, *scores)
    found = compare_classification(severity, *scores, patients)
    assert set(found) == set(METRIC_NAMES)
    assert found["auc"].difference == pytest.approx(exact.difference) and found["auc"].method == "permutation"
    assert exact.low is not None and exact.high is not None and exact.p_value is not None
    assert found["auc"].low == pytest.approx(exact.low, abs=0.005)
    assert found["auc"].high == pytest.approx(exact.high, abs=0.005)
    assert found["auc"].p_value == pytest.approx(exact.p_value, abs=0.02)
    assert compare_classification(severity, *scores, patients) == found
    same = compare_classification(severity, scores[0], scores[0], patients, permutations=200)["auc"]
    assert same.difference == 0.0 and same.p_value == 1.0 and same.low is None and same.reason == CONSTANT


@pytest.mark.parametrize("name", ["accuracy", "recall", "f1", "auc"])
def test_few_patients_are_exchanged_in_every_way(name: str) -> None:
    """Against a plain loop over all 2^7 exchanges, with a threshold for each method."""
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(7), 2)
    severity = (patients < 3).astype(np.int64)
    one, two = rng.random((2, 14)).round(1)
    found = compare_classification(severity, one, two, [str(p) for p in patients], thresholds=(0.4, 0.6))[name]
    ranked = [scipy.stats.rankdata(score) / 14 for score in (one, two)]
    answers = ranked if name == "auc" else [(one >= 0.4).astype(float), (two >= 0.6).astype(float)]
    gaps = []
    for number in range(2**7):
        swapped = ((number >> np.arange(7)) & 1).astype(bool)[patients]
        sides = [np.where(swapped, answers[1 - k], answers[k]) for k in (0, 1)]
        values = [classification_metrics(severity, side).values()[name] for side in sides]
        gaps.append(np.inf if None in values else abs(values[1] - values[0]))  # type: ignore[operator]
    assert found.exact and found.p_value == pytest.approx(np.mean(np.array(gaps) >= gaps[0] - 1e-12))


def test_few_patients_cannot_be_told_apart() -> None:
    found = compare_means([0.90, 0.91, 0.92], [0.91, 0.93, 0.95], list("abc"))
    assert found.p_value == 0.25 and found.exact and found.method == "sign-flip"
    interval = scipy.stats.ttest_1samp([0.01, 0.02, 0.03], 0).confidence_interval()
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    one = compare_means([0.90, 0.91], [0.91, 0.93], list("aa"))
    assert one.p_value is None and one.low is None and one.reason == FEW_PATIENTS


def test_the_sign_flip_test_is_scipys() -> None:
    gaps = np.random.default_rng(4).normal(0.01, 0.02, 9)
    theirs = scipy.stats.permutation_test((gaps,), np.mean, permutation_type="samples", n_resamples=np.inf)
    ours = compare_means(np.full(9, 0.8), 0.8 + gaps, [str(n) for n in range(9)])
    assert ours.exact and ours.p_value == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("patients", [3, 5, 10])
def test_equal_methods_differ_no_more_often_than_stated(patients: int) -> None:
    """A bootstrap's p-values lie below 0.05 several times as often as stated in such cohorts."""
    below = 0
    for seed in range(400):
        rng = np.random.default_rng([patients, seed])
        index = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
        gap = rng.normal(0, 0.05, patients)[index] + rng.normal(0, 0.02, index.size)
        p = compare_means(np.zeros(index.size), gap, [str(n) for n in index], permutations=499, seed=seed).p_value
        assert p is not None
        below += p < 0.05
    assert below / 400 <= 0.07


def test_paired_means_agree_with_a_paired_t_test() -> None:
    rng = np.random.default_rng(9)
    first = rng.normal(0.8, 0.05, 200)
    second = first + rng.normal(0.003, 0.02, 200)
    patients = [str(n) for n in range(200)]
    found = compare_means(first, second, patients)
    expected = scipy.stats.ttest_rel(second, first)
    interval = expected.confidence_interval()
    assert found.difference == pytest.approx((second - first).mean()) and not found.exact
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.02)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_paired_means_use_only_scans_where_both_are_defined() -> None:
    found = compare_means([0.5, 0.7, None, 0.9], [0.6, None, 0.9, 0.8], list("abcd"))
    assert found.first == pytest.approx(0.7) and found.second == pytest.approx(0.7)
    assert found.p_value == 1.0
    nothing = compare_means([None, 0.5], [0.5, None], list("ab"))
    assert nothing.difference is None and nothing.p_value is None and nothing.reason
    with pytest.raises(M2UNetError, match="one length"):
        compare_means([0.5, 0.6], [0.5, 0.6, 0.7], list("ab"))
