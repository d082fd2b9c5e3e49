"""Evaluation and cross-validation."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from sklearn.metrics import roc_auc_score

from m2unet.cohort.manifest import Manifest
from m2unet.config import Config
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor
from m2unet.workflows.crossval import CrossValidation
from m2unet.workflows.evaluate import Evaluation, evaluate_scans
from m2unet.workflows.run_folder import RunFolder
from m2unet.workflows.store import prepared_store


@pytest.fixture(scope="module")
def evaluation(run: RunFolder, cohort: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation]:
    out = tmp_path_factory.mktemp("evaluation")
    return out, evaluate_scans(Predictor.load(run.path), cohort.rows[:6], out)


def test_one_row_a_scan(evaluation: tuple[Path, Evaluation], cohort: Manifest) -> None:
    out, found = evaluation
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert [row["scan_id"] for row in rows] == [row.scan_id for row in cohort.rows[:6]]
    truth = [int(row["severity"]) for row in rows]
    probability = [float(row["probability"]) for row in rows]
    assert found.figures.per_scan["auc"].estimate == pytest.approx(roc_auc_score(truth, probability))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["figures"]["per_scan"]["dsc"]["estimate"] == pytest.approx(np.mean([float(r["dsc"]) for r in rows]))
    assert "| auc |" in (out / "results.md").read_text()


def test_dice_is_that_of_the_whole_volume(
    run: RunFolder, evaluation: tuple[Path, Evaluation], cohort: Manifest
) -> None:
    row = cohort.rows[0]
    assert row.lobes is not None
    prediction = Predictor.load(run.path).predict(row.image, severity=False)
    assert prediction.lobes is not None
    tidied = postprocess_lobes(prediction.lobes, prediction.volume.voxel_ml).mask
    found = prediction.volume.to_source(tidied)
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(row.lobes)))
    measure = sitk.LabelOverlapMeasuresImageFilter()
    measure.Execute(
        sitk.GetImageFromArray((truth == 3).astype(np.uint8)), sitk.GetImageFromArray((found == 3).astype(np.uint8))
    )
    assert evaluation[1].scores[0].overlap["dsc_RLL"] == pytest.approx(measure.GetDiceCoefficient(), abs=1e-6)


def test_finished_scans_are_not_scored_again(
    run: RunFolder, evaluation: tuple[Path, Evaluation], cohort: Manifest
) -> None:
    out, found = evaluation
    path = out / "scores" / f"{cohort.rows[0].scan_id}.json"
    before = path.stat().st_mtime_ns
    again = evaluate_scans(Predictor.load(run.path), cohort.rows[:6], out)
    assert again == found and path.stat().st_mtime_ns == before
    path.write_text("{")
    assert evaluate_scans(Predictor.load(run.path), cohort.rows[:6], out) == found


def test_a_scan_that_fails_is_counted(run: RunFolder, cohort: Manifest, tmp_path: Path) -> None:
    broken = replace(cohort.rows[1], scan_id="broken", image=tmp_path / "nothing.nii.gz")
    found = evaluate_scans(Predictor.load(run.path), [cohort.rows[0], broken], tmp_path / "out")
    assert found.figures.failed == 1 and found.figures.scans == 1
    assert found.scores[1].error
    assert found.figures.per_scan["auc"].estimate is None


def test_cross_validation_skips_finished_folds(cohort: Manifest, tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config.model_copy(update={"train": tiny_config.train.model_copy(update={"epochs": 1})})
    store = prepared_store(cohort, tmp_path / "store", config)
    job = CrossValidation(cohort, store, config, tmp_path / "cv")
    first = job.run(only=[0], folds=3)
    stamp = (tmp_path / "cv" / "fold0" / "model" / "weights.safetensors").stat().st_mtime_ns
    second = job.run(only=[0, 2], folds=3)
    assert (tmp_path / "cv" / "fold0" / "model" / "weights.safetensors").stat().st_mtime_ns == stamp
    assert first["dsc"].folds == 1 and second["dsc"].folds == 2
    summary = json.loads((tmp_path / "cv" / "summary.json").read_text())
    assert summary["folds"] == [0, 2]
    splits = job.splits()
    assert {s for split in splits for s in split.test} == {row.scan_id for row in cohort.rows}
