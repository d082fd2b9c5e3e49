"""Paired comparisons: against the definition by brute force, against resampling, and under a true null."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from m2unet.errors import M2UNetError
from m2unet.evaluation.classification import METRIC_NAMES, area_under_curve
from m2unet.evaluation.comparison import auc_covariance, compare_classification, compare_means, delong_test
from m2unet.evaluation.intervals import draw_counts


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
    for counts in draw_counts(150, 600, seed=1):
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


def test_the_bootstrap_agrees_with_delong() -> None:
    severity, scores = two_methods(3, scans=240)
    patients = [str(n) for n in range(240)]
    exact = delong_test(severity, *scores)
    drawn = compare_classification(severity, *scores, patients, resamples=4000)
    assert set(drawn) == set(METRIC_NAMES)
    assert drawn["auc"].difference == pytest.approx(exact.difference)
    assert exact.low is not None and exact.high is not None
    assert drawn["auc"].low == pytest.approx(exact.low, abs=0.01)
    assert drawn["auc"].high == pytest.approx(exact.high, abs=0.01)
    again = compare_classification(severity, *scores, patients, resamples=4000)
    assert again == drawn
    same = compare_classification(severity, scores[0], scores[0], patients, resamples=200)
    assert same["auc"].difference == 0.0 and same["auc"].p_value == 1.0


def test_paired_means_agree_with_a_paired_t_test() -> None:
    rng = np.random.default_rng(9)
    first = rng.normal(0.8, 0.05, 200)
    second = first + rng.normal(0.003, 0.02, 200)
    patients = [str(n) for n in range(200)]
    found = compare_means(first, second, patients, resamples=8000)
    expected = scipy.stats.ttest_rel(second, first)
    interval = expected.confidence_interval()
    assert found.difference == pytest.approx((second - first).mean())
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.02)
    assert (found.low, found.high) == (pytest.approx(interval.low, abs=5e-4), pytest.approx(interval.high, abs=5e-4))


def test_paired_means_use_only_scans_where_both_are_defined() -> None:
    found = compare_means([0.5, 0.7, None, 0.9], [0.6, None, 0.9, 0.8], list("abcd"), resamples=500)
    assert found.first == pytest.approx(0.7) and found.second == pytest.approx(0.7)
    assert found.undefined > 0
    nothing = compare_means([None, 0.5], [0.5, None], list("ab"), resamples=20)
    assert nothing.difference is None and nothing.p_value is None and nothing.reason
    with pytest.raises(M2UNetError, match="one length"):
        compare_means([0.5, 0.6], [0.5, 0.6, 0.7], list("ab"))
