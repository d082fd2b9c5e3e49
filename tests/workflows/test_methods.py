"""The methods without a network behind the same commands as the networks."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m2unet.cli import main as main_module
from m2unet.cohort.manifest import Manifest
from m2unet.cohort.masks import read_lobe_mask
from m2unet.config import ConfidenceConfig, Config, load_config
from m2unet.ct.read import read_scan
from m2unet.errors import ConfigError, M2UNetError, ModelError
from m2unet.handcrafted.predictor import HandcraftedPredictor
from m2unet.models.methods import METHODS, method
from m2unet.models.registry import MODELS
from m2unet.quantify.quantities import quantify
from m2unet.workflows.confidence import JudgedScans, fit_calibrator, fit_scores
from m2unet.workflows.crossval import CrossValidation
from m2unet.workflows.methods import load_method, method_store
from m2unet.workflows.run_folder import RunFolder
from tests.small_cohort import TINY


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["m2unet", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main_module.run()
    return int(stop.value.code or 0)


def test_the_table_of_methods_agrees_with_the_registry() -> None:
    assert {m.name for m in METHODS.values() if m.network} - {"m2unet_position"} == set(MODELS)
    for name, entry in MODELS.items():
        config = load_config("demo", [*TINY, *METHODS[name].settings])
        assert entry.build(config.model).tasks == METHODS[name].tasks
    ours = load_config("paper", method("m2unet_position").settings)
    assert ours.model.position and ours.bag.position == "lungs" and not load_config("paper").model.position
    with pytest.raises(ConfigError, match="vnet"):
        method("vnet")


@pytest.fixture(scope="module")
def folds(cohort: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One fold of both methods, cross-validated beside each other."""
    out = tmp_path_factory.mktemp("handcrafted")
    for name in ("tang", "yang"):
        config = load_config("demo", [*TINY, f"model.name={name}", "handcrafted.trees=20"])
        store = method_store(cohort, out / "store", config)
        CrossValidation(cohort, store, config, out / name).run(only=[0], folds=3)
    return out


def test_same_folds_same_figures_as_any_network(folds: Path, cohort: Manifest) -> None:
    splits = {name: json.loads((folds / name / "fold0" / "split.json").read_text()) for name in ("tang", "yang")}
    assert splits["tang"] == splits["yang"]
    for name in ("tang", "yang"):
        summary = json.loads((folds / name / "fold0" / "summary.json").read_text())
        assert summary["figures"]["failed"] == 0
        assert {"accuracy", "precision", "recall", "f1", "auc"} <= set(summary["figures"]["per_scan"])
        assert "dsc" not in summary["figures"]["per_scan"], "lobes that were given are not scored"
        rows = list(csv.DictReader((folds / name / "fold0" / "predictions.csv").open()))
        assert [row["scan_id"] for row in rows] == splits[name]["test"]
    assert not list(folds.rglob("*.pkl")) and not list(folds.rglob("*.joblib"))
    assert len(list((folds / "store-measurements").glob("*.json"))) == len(cohort)


def test_features_are_those_of_the_scan(folds: Path, cohort: Manifest) -> None:
    rows = list(csv.DictReader((folds / "tang" / "fold0" / "features.csv").open()))
    row = cohort.by_id(rows[0]["scan_id"])
    assert row.lobes is not None
    volume = read_scan(row.image)
    found = quantify(volume.array, read_lobe_mask(row.lobes, volume), volume.spacing_mm)
    assert float(rows[0]["lungs.opacity_ml [ml]"]) == pytest.approx(found.opacity["lungs"].opacity_ml, rel=1e-5)
    assert int(rows[0]["severity_score [0-40]"]) == found.severity_score.total


def test_predicting_one_scan_gives_what_evaluation_gave(folds: Path, cohort: Manifest) -> None:
    predicted = next(iter(csv.DictReader((folds / "tang" / "fold0" / "predictions.csv").open())))
    row = cohort.by_id(predicted["scan_id"])
    predictor = load_method(folds / "tang" / "fold0")
    assert isinstance(predictor, HandcraftedPredictor)
    prediction = predictor.predict(row.image, mask=row.lobes)
    assert prediction.severity is not None and len(prediction.severity.bags) == 10  # parts of the forest
    assert prediction.severity.probability == pytest.approx(float(predicted["raw"]))
    judged = prediction.judgement
    assert judged is not None and judged.probability == pytest.approx(float(predicted["probability"]))
    assert judged.said == predicted["answer"] and judged.threshold == pytest.approx(float(predicted["threshold"]))
    with pytest.raises(ModelError, match="lobe_model"):
        predictor.predict(row.image)


def test_scores_are_calibrated_and_judged_like_a_networks(folds: Path, cohort: Manifest) -> None:
    for name in ("tang", "yang"):
        run = folds / name / "fold0"
        predictor = load_method(run)
        assert isinstance(predictor, HandcraftedPredictor)
        split = json.loads((run / "split.json").read_text())
        held = [cohort.by_id(scan_id) for scan_id in split["validation"]]
        known = JudgedScans(
            [int(row.severity or 0) for row in held],
            [predictor.assess_row(row).estimate.probability for row in held],
            [row.patient_id for row in held],
        )
        stored = predictor.confidence
        assert stored.calibrator == fit_calibrator(known, predictor.config.confidence)
        chosen = fit_scores(known, predictor.config.confidence).operating_point
        assert name == "yang" or stored.operating_point == chosen
        summary = json.loads((run / "summary.json").read_text())
        assert (
            summary["appraisal"]["calibrated"]["brier"] is not None and summary["appraisal"]["abstention"] is not None
        )
        assert "### By slice thickness" in (run / "results.md").read_text()
        card = (run / "MODEL_CARD.md").read_text()
        assert predictor.identity.weights_sha256 in card and "patches" not in card.split("## TRIPOD")[0]


def test_a_cross_validation_has_a_card_of_all_its_folds(folds: Path, cohort: Manifest) -> None:
    text = (folds / "tang" / "MODEL_CARD.md").read_text()
    figures = json.loads((folds / "tang" / "summary.json").read_text())["figures"]
    assert f"auc {figures['auc']['mean']:.3f} over folds" in text
    assert "1 models, one a fold: fold0/model" in text and f"{len(cohort)} scans of" in text


def test_the_score_rule_stays_the_rule(folds: Path) -> None:
    """Calibration moves the score rule's probabilities, and its decisions not."""
    run = folds / "yang" / "fold0"
    predictor = load_method(run)
    assert isinstance(predictor, HandcraftedPredictor)
    point = predictor.confidence.operating_point
    assert point.threshold == predictor.confidence.calibrator(0.5) == predictor.decides_from
    assert point.rule == "the method's own rule: severity score above 19.5"
    rows = list(csv.DictReader((run / "predictions.csv").open()))
    right = np.mean([(float(row["raw"]) >= 0.5) == (row["severity"] == "1") for row in rows])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["figures"]["per_scan"]["accuracy"]["estimate"] == pytest.approx(right)
    assert "(the method's own rule: severity score above 19.5)" in (run / "results.md").read_text()


def test_isotonic_would_blur_a_rule() -> None:
    known = JudgedScans([0, 1, 0, 1], [0.2, 0.45, 0.55, 0.8], list("abcd"))
    isotonic = ConfidenceConfig(calibration="isotonic")
    assert fit_scores(known, isotonic).calibrator.kind == "isotonic"
    ruled = fit_scores(known, isotonic, "the method's own rule: x")
    assert ruled.calibrator.kind == "logistic" and ruled.operating_point.sensitivity == 0.5
    none = fit_scores(JudgedScans([], [], []), isotonic, "the method's own rule: x").operating_point
    assert none.threshold == 0.5 and none.scans == 0 and none.reason


def test_lobes_from_a_model_of_ours(run: RunFolder, cohort: Manifest, tiny_config: Config, tmp_path: Path) -> None:
    rows = tuple(replace(row, lobes=None) for row in cohort.rows)
    settings = [*TINY, "model.name=tang", "handcrafted.trees=5", f"handcrafted.lobe_model={run.path}"]
    config = load_config("demo", settings)
    bare = Manifest(cohort.path, rows)
    job = CrossValidation(bare, method_store(bare, tmp_path / "store", config), config, tmp_path / "cv")
    assert job.run(only=[0], folds=3)["accuracy"].mean is not None
    table = list(csv.DictReader((tmp_path / "cv" / "fold0" / "features.csv").open()))
    assert {row["lobes_from"] for row in table} == {"model"}
    leakage = json.loads((tmp_path / "cv" / "fold0" / "summary.json").read_text())["appraisal"]["leakage"]
    assert set(leakage["same_patient"]) == set(job.splits()[0].test), "the lobe network was trained on them"


def test_without_any_lobes_the_reason_is_told(cohort: Manifest, tmp_path: Path) -> None:
    bare = Manifest(cohort.path, tuple(replace(row, lobes=None) for row in cohort.rows))
    config = load_config("demo", [*TINY, "model.name=yang"])
    job = CrossValidation(bare, method_store(bare, tmp_path / "store", config), config, tmp_path / "cv")
    with pytest.raises(M2UNetError, match="lobe_model"):
        job.run(only=[0], folds=3)


def test_damaged_parameters_are_refused(folds: Path, tmp_path: Path) -> None:
    model = folds / "yang" / "fold0" / "model"
    copy = tmp_path / "model"
    copy.mkdir()
    (copy / "model.json").write_bytes((model / "model.json").read_bytes())
    (copy / "parameters.json").write_text('{"threshold": 10}\n')
    with pytest.raises(ModelError, match="not the file the card was written with"):
        load_method(copy)


def test_as_a_user(
    cohort: Manifest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "yang"
    assert call(monkeypatch, "train", cohort.path, "--out", out, "--preset", "demo", "--model", "yang") == 0
    assert json.loads((out / "model" / "model.json").read_text())["threshold"] == 19.5
    assert call(monkeypatch, "evaluate", out, cohort.path, "--out", tmp_path / "ev") == 0
    row = cohort.rows[0]
    arguments = ("predict", row.image, "--model", out, "--no-report", "--out", tmp_path / "cases")
    assert call(monkeypatch, *arguments) == 2
    assert call(monkeypatch, *arguments, "--lobes", str(row.lobes)) == 0
    capsys.readouterr()
    assert call(monkeypatch, *arguments, "--lobes", str(row.lobes)) == 0
    assert "skipped" in capsys.readouterr().out
    assert call(monkeypatch, "train", cohort.path, "--out", tmp_path / "x", "--model", "vnet") == 2
