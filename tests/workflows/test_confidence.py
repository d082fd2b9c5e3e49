"""Confidence fitted after training, stored with the model, applied by whoever loads it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from m2unet.cohort.folds import Split
from m2unet.cohort.manifest import Manifest
from m2unet.cohort.store import Store
from m2unet.config import ConfidenceConfig, Config
from m2unet.inference import outlier
from m2unet.inference.predictor import Predictor
from m2unet.inference.severity import estimate_severity
from m2unet.models.weights import load_model
from m2unet.workflows import confidence as workflow
from m2unet.workflows.confidence import (
    JudgedScans,
    choose_operating_point,
    fit_calibrator,
    fit_confidence,
    reliability,
)
from m2unet.workflows.run_folder import RunFolder

CPU = torch.device("cpu")
KNOWN = JudgedScans([0, 0, 1, 0, 1, 1], [0.3, 0.5, 0.6, 0.65, 0.8, 0.9], list("abcdef"))


def test_a_trained_model_carries_its_confidence(run: RunFolder, cohort: Manifest, tiny_config: Config) -> None:
    predictor = Predictor.load(run.path)
    split = json.loads(run.split_file.read_text())
    store = Store(run.path.parent / "store", cohort.rows)
    rows = [cohort.by_id(scan_id) for scan_id in split["validation"]]
    found = [
        estimate_severity(predictor.network, store.open(row.scan_id), tiny_config, seed=tiny_config.seed, device=CPU)
        for row in rows
    ]
    known = JudgedScans(
        [row.severity or 0 for row in rows], [e.probability for e in found], [r.patient_id for r in rows]
    )
    stored = predictor.confidence
    expected = fit_calibrator(known, tiny_config.confidence)
    assert stored.calibrator.kind == expected.kind == "logistic" and stored.calibrator.scans == len(rows)
    assert stored.calibrator.slope == pytest.approx(expected.slope, rel=1e-4)
    assert stored.operating_point == choose_operating_point(known, stored.calibrator, tiny_config.confidence)
    assert stored.validation["brier_raw"] == pytest.approx(
        np.mean((np.array(known.probability) - known.severity) ** 2), abs=1e-6
    )
    assert stored.reference is not None and len(stored.reference.vectors) == len(split["train"])
    assert "confidence" in load_model(run.model).card


def test_predictions_are_calibrated_and_keep_what_the_network_said(run: RunFolder, cohort: Manifest) -> None:
    predictor = Predictor.load(run.path)
    found = predictor.predict(cohort.rows[0].image, lobes=False)
    assert found.severity is not None and found.judgement is not None
    assert found.judgement.probability == predictor.confidence.calibrator(found.severity.probability)
    assert found.judgement.threshold == predictor.confidence.operating_point.threshold
    assert found.confidence is predictor.confidence
    assert predictor.predict(cohort.rows[0].image, severity=False, lobes=False).judgement is None


def test_the_reference_is_of_training_scans(
    run: RunFolder, cohort: Manifest, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(run.path.parent / "store", cohort.rows)
    split = Split(**{k: tuple(v) for k, v in json.loads(run.split_file.read_text()).items() if k != "schema"})
    model = load_model(run.model).model
    found = fit_confidence(model, store, split, tiny_config, CPU)
    assert found is not None and found.reference is not None and found.reference_reason is None
    channels = 4 * tiny_config.model.width + tiny_config.model.deep_width  # of the encoder's five maps
    assert found.reference.vectors.shape == (len(split.train), 2 * channels)
    assert len(found.reference.usual) == len(split.train), "two validation scans are too few for the limit"
    fewer = tiny_config.model_copy(update={"confidence": ConfidenceConfig(reference_scans=5)})
    unknown = fit_confidence(model, store, split, fewer, CPU)
    assert unknown is not None and unknown.reference is None and "12 are needed" in str(unknown.reference_reason)
    monkeypatch.setattr(outlier, "LEAST_SCANS", 4)
    monkeypatch.setattr(workflow, "LEAST_SCANS", 4)
    few = tiny_config.model_copy(update={"confidence": ConfidenceConfig(reference_scans=5)})
    less = fit_confidence(model, store, split, few, CPU)
    assert less is not None and less.reference is not None and len(less.reference.vectors) == 5
    none = fit_confidence(model, store, replace(split, validation=()), tiny_config, CPU)
    assert none is not None and none.calibrator.kind == "none" and none.operating_point.threshold == 0.5
    assert "no validation scan" in str(none.calibrator.reason) and none.validation == {}


def test_a_network_without_severity_has_no_confidence(run: RunFolder, cohort: Manifest, tiny_config: Config) -> None:
    store = Store(run.path.parent / "store", cohort.rows)

    class LobesOnly:
        tasks = frozenset({"lobes"})

    assert fit_confidence(LobesOnly(), store, Split((), (), ()), tiny_config, CPU) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["logistic", "temperature", "isotonic"])
def test_every_kind_of_map_rises(kind: str) -> None:
    calibrator = fit_calibrator(KNOWN, ConfidenceConfig.model_validate({"calibration": kind}))
    assert calibrator.kind == kind and (calibrator.scans, calibrator.patients) == (6, 6) and calibrator.reason is None
    values = [calibrator(p) for p in np.linspace(0.01, 0.99, 30)]
    assert values == sorted(values) and values[-1] > values[0]


def test_what_cannot_be_fitted_says_why() -> None:
    assert fit_calibrator(KNOWN, ConfidenceConfig(calibration="none")).reason == (
        "not asked for (confidence.calibration)"
    )
    one = JudgedScans([1, 1], [0.6, 0.7], ["a", "b"])
    calibrator = fit_calibrator(one, ConfidenceConfig())
    assert calibrator.kind == "none" and "of one class" in str(calibrator.reason)
    assert choose_operating_point(one, calibrator, ConfidenceConfig()).reason == calibrator.reason


def test_the_operating_point_follows_the_rule() -> None:
    plain = fit_calibrator(KNOWN, ConfidenceConfig(calibration="none"))
    youden = choose_operating_point(KNOWN, plain, ConfidenceConfig())
    # 0.55 finds all three severe with one alarm (J = 2/3); 0.725 finds two without (J = 2/3): the nearer to 0.5 wins
    assert youden.threshold == pytest.approx(0.55) and youden.sensitivity == 1.0
    assert youden.specificity == pytest.approx(2 / 3) and youden.rule == "youden"
    wanted = choose_operating_point(KNOWN, plain, ConfidenceConfig(rule="sensitivity", target_sensitivity=0.6))
    assert wanted.threshold == pytest.approx(0.725) and wanted.rule == "sensitivity of at least 0.6"


@pytest.mark.parametrize("scores", [[0.3] * 4, [0.8, 0.2, 0.7, 0.1]])
def test_scores_that_do_not_separate_the_classes_choose_no_threshold(scores: list[float]) -> None:
    known = JudgedScans([0, 1, 0, 1], scores, list("abcd"))
    plain = fit_calibrator(known, ConfidenceConfig(calibration="none"))
    found = choose_operating_point(known, plain, ConfidenceConfig())
    assert (found.threshold, found.scans, found.informative) == (0.5, 0, False)
    assert "4 validation scans do not separate" in str(found.reason)


def test_the_interval_of_the_threshold_is_a_bootstrap_over_patients() -> None:
    rng = np.random.default_rng(2)
    severity = rng.integers(2, size=40)
    scores = np.clip(0.5 + 0.3 * (severity - 0.5) + rng.normal(0, 0.15, 40), 0.01, 0.99)
    plain, config = fit_calibrator(KNOWN, ConfidenceConfig(calibration="none")), ConfidenceConfig()
    names = [f"p{i}" for i in range(40)]
    single = choose_operating_point(JudgedScans(severity.tolist(), scores.tolist(), names), plain, config)

    def youden(truth: np.ndarray, values: np.ndarray) -> float:
        levels = np.unique(values)
        middles = (levels[1:] + levels[:-1]) / 2
        gains = [(values[truth == 1] >= m).mean() - (values[truth == 0] >= m).mean() for m in middles]
        best = middles[np.isclose(gains, max(gains))]
        return float(best[np.argmin(abs(best - 0.5))])

    theirs = stats.bootstrap(
        (severity, scores), youden, paired=True, vectorized=False, method="percentile", n_resamples=1000, rng=3
    ).confidence_interval
    assert single.low is not None and single.high is not None and single.low < single.threshold < single.high
    assert (single.low, single.high) == pytest.approx((theirs.low, theirs.high), abs=0.04)
    twice = JudgedScans([*severity.tolist()] * 2, [*scores.tolist()] * 2, names * 2)
    assert choose_operating_point(twice, plain, config).low == single.low  # a patient's scans stay together


def test_reliability_tells_before_and_after() -> None:
    found = reliability(KNOWN, fit_calibrator(KNOWN, ConfidenceConfig(calibration="isotonic")))
    assert found["brier"] < found["brier_raw"] and found["ece"] <= found["ece_raw"] and found["severe"] == 3
    assert sum(b["count"] for b in found["bins"]) == 6
