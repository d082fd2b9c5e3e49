"""Patient-clustered bootstrap: against SciPy's bootstrap, a plain loop, and a simulation of its coverage."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from m2unet.errors import M2UNetError
from m2unet.evaluation.classification import METRIC_NAMES, classification_metrics
from m2unet.evaluation.intervals import (
    bootstrap_intervals,
    classification_intervals,
    draw_counts,
    mean_intervals,
    percentile_interval,
)


def cohort(seed: int, patients: int = 40) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
    """Patients of one to four scans; probabilities rounded, so that ties occur."""
    rng = np.random.default_rng(seed)
    scans = rng.integers(1, 5, patients)
    severity = np.repeat(rng.random(patients) < 0.35, scans).astype(np.int64)
    level = np.repeat(rng.normal(0, 0.2, patients), scans) + 0.35 + 0.25 * severity
    probability = np.clip(np.round(level + rng.normal(0, 0.1, level.size), 1), 0, 1)
    return [f"p{n}" for n in np.repeat(np.arange(patients), scans)], severity, probability


def test_every_resample_draws_as_many_patients() -> None:
    counts = draw_counts(7, 500, seed=3)
    assert counts.shape == (500, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=0.15)
    np.testing.assert_array_equal(counts, draw_counts(7, 500, seed=3))
    assert (counts != draw_counts(7, 500, seed=4)).any()
    with pytest.raises(M2UNetError, match="at least one patient"):
        draw_counts(0, 10, seed=0)


@pytest.mark.parametrize("seed", range(3))
def test_without_a_loop_it_is_the_same_as_with_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    patients, severity, probability = cohort(seed)

    def metric(scans: NDArray[np.int64]) -> Mapping[str, float | None]:
        return classification_metrics(severity[scans], probability[scans], 0.6).values()

    looped = bootstrap_intervals(patients, metric, resamples=60, seed=seed)
    monkeypatch.setattr("m2unet.evaluation.intervals._CHUNK_WEIGHTS", 1000)
    at_once = classification_intervals(severity, probability, patients, threshold=0.6, resamples=60, seed=seed)
    assert set(at_once) == set(METRIC_NAMES)
    for name in METRIC_NAMES:
        one, two = looped[name].to_dict(), at_once[name].to_dict()
        assert one.keys() == two.keys()
        for key, value in one.items():
            assert two[key] == (pytest.approx(value) if isinstance(value, float) else value), (name, key)


def test_one_scan_a_patient_is_scipys_bootstrap() -> None:
    values = np.random.default_rng(1).gamma(2.0, 1.0, 60)
    ours = mean_intervals({"dsc": values}, [str(n) for n in range(60)], resamples=20_000)["dsc"]
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert ours.estimate == pytest.approx(values.mean())
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=0.02), pytest.approx(theirs.high, abs=0.02))


def test_scans_of_one_patient_are_not_independent() -> None:
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(0, 1, 30), 8)
    by_patient = mean_intervals({"x": values}, [str(n) for n in np.repeat(np.arange(30), 8)])["x"]
    by_scan = mean_intervals({"x": values}, [str(n) for n in range(240)])["x"]
    widths = [i.high - i.low for i in (by_patient, by_scan) if i.high is not None and i.low is not None]
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(8), rel=0.15)


def test_coverage_over_simulated_cohorts() -> None:
    rng, hits = np.random.default_rng(5), 0
    for trial in range(150):
        patient_means = rng.normal(0, 1, 40)
        values = np.repeat(patient_means, 3) + rng.normal(0, 0.5, 120)
        found = mean_intervals({"x": values}, [str(n) for n in np.repeat(np.arange(40), 3)], resamples=400, seed=trial)
        low, high = found["x"].low, found["x"].high
        assert low is not None and high is not None
        hits += low <= 0 <= high
    assert 0.88 <= hits / 150 <= 0.99


def test_undefined_values_are_left_out_and_undefined_resamples_counted() -> None:
    patients = ["a", "a", "b", "c"]
    found = mean_intervals({"dsc": [0.8, None, None, float("nan")], "sen": [None] * 4}, patients, resamples=2000)
    assert found["dsc"].estimate == 0.8
    assert found["dsc"].undefined / 2000 == pytest.approx((2 / 3) ** 3, abs=0.04)  # patient a never drawn
    assert (found["dsc"].low, found["dsc"].high) == (pytest.approx(0.8), pytest.approx(0.8))
    assert found["sen"].estimate is found["sen"].low is None
    assert found["sen"].reason == "the figure itself is undefined"
    with pytest.raises(M2UNetError, match="needs its dsc"):
        mean_intervals({"dsc": [0.8]}, patients)


def test_when_there_is_no_interval_there_is_a_reason() -> None:
    single = classification_intervals([1, 0], [0.9, 0.2], ["a", "a"], resamples=20)["accuracy"]
    assert (single.estimate, single.low, single.reason) == (1.0, None, "there is only one patient to resample")
    rare = percentile_interval(0.5, np.array([0.5, np.nan, np.nan]), 9, 0.95)
    assert rare.high is None and rare.undefined == 2 and "2 of 3 resamples" in str(rare.reason)
    with pytest.raises(M2UNetError, match="between 0 and 1"):
        percentile_interval(0.5, np.array([0.5]), 9, 95.0)


def test_cells_and_json() -> None:
    assert percentile_interval(0.5, np.linspace(0, 1, 1001), 9, 0.95).cell() == "0.500 [0.025, 0.975]"
    assert percentile_interval(0.5, np.array([0.5]), 1, 0.95).cell(2) == "0.50"
    undefined = percentile_interval(None, np.array([np.nan]), 4, 0.95)
    assert len(undefined.cell()) == 1
    assert json.loads(json.dumps(undefined.to_dict(), allow_nan=False))["undefined"] == 1
