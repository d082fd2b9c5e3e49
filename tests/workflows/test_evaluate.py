"""Evaluation and cross-validation."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from m2unet.anatomy import CODE_MAPS, LOBES
from m2unet.cli.main import app
from m2unet.cohort.manifest import Manifest, ManifestRow
from m2unet.cohort.masks import read_lobe_mask
from m2unet.cohort.prepare import prepare_cohort
from m2unet.cohort.store import Store
from m2unet.config import Config
from m2unet.ct.read import read_scan
from m2unet.errors import RunError
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import ModelIdentity, Prediction, Predictor
from m2unet.training.distributed import World
from m2unet.workflows.crossval import CrossValidation
from m2unet.workflows.evaluate import Evaluation, evaluate_scans
from m2unet.workflows.run_folder import RunFolder
from m2unet.workflows.store import prepared_store


@pytest.fixture(scope="module")
def evaluation(run: RunFolder, cohort: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation]:
    out = tmp_path_factory.mktemp("evaluation")
    return out, evaluate_scans(Predictor.load(run.path), cohort.rows[:6], out)


@pytest.fixture(scope="module")
def recoded(cohort: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The cohort with masks as lungmask would write them."""
    folder, theirs = tmp_path_factory.mktemp("recoded"), {ours: code for code, ours in CODE_MAPS["lungmask"].items()}
    rows = []
    for row in cohort.rows:
        image = sitk.ReadImage(str(row.lobes))
        mask = sitk.GetArrayFromImage(image)
        other = sitk.GetImageFromArray(np.array([theirs.get(code, 0) for code in range(7)], np.uint8)[mask])
        other.CopyInformation(image)
        rows.append(replace(row, lobes=folder / f"{row.scan_id}.nii.gz"))
        sitk.WriteImage(other, str(rows[-1].lobes))
    return replace(cohort, rows=tuple(rows))


class Beside:
    """Stands in for a predictor: the true lobes one voxel further left, without the right middle one."""

    def __init__(self, cohort: Manifest) -> None:
        self.masks = {row.image: row.lobes for row in cohort.rows}
        self.identity = ModelIdentity("beside", "demo", "0" * 64, None)

    def predict(self, scan: Path, **_: object) -> Prediction:
        volume, path = read_scan(scan), self.masks[scan]
        assert path is not None
        truth = read_lobe_mask(path, volume)
        return Prediction(volume, np.roll(np.where(truth == 2, 0, truth), 1, 2).astype(np.uint8), None, self.identity)


def evaluate_beside(cohort: Manifest, rows: Sequence[ManifestRow], out: Path, **more: Any) -> Evaluation:
    return evaluate_scans(cast(Predictor, Beside(cohort)), rows, out, **more)


def test_surface_figures_are_in_table_and_rows(cohort: Manifest, tmp_path: Path) -> None:
    found = evaluate_beside(cohort, cohort.rows[:2], tmp_path)
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [row["surface_dice_RML"] for row in rows] == ["0.0", "0.0"] and rows[0]["hd95_mm_RML"] == ""
    for name, lobes in (("surface_dice", LOBES), ("hd95_mm", [lobe for lobe in LOBES if lobe.abbreviation != "RML"])):
        for row in rows:
            assert float(row[name]) == pytest.approx(np.mean([float(row[f"{name}_{x.abbreviation}"]) for x in lobes]))
        mean = np.mean([float(row[name]) for row in rows])
        assert found.figures.per_scan[name].estimate == pytest.approx(mean)
        assert f"| {name} | {mean:.3f}" in (tmp_path / "results.md").read_text()
    volume, path = read_scan(cohort.rows[0].image), cohort.rows[0].lobes
    assert path is not None
    lobe = read_lobe_mask(path, volume) == 3
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (lobe, np.roll(lobe, 1, 2))]
    reach = [ndimage.distance_transform_edt(~edge, sampling=volume.spacing_mm) for edge in edges]
    expected = max(np.percentile(reach[1][edges[0]], 95), np.percentile(reach[0][edges[1]], 95))
    assert float(rows[0]["hd95_mm_RLL"]) == pytest.approx(expected)


def test_columns_of_ones_own_reach_the_predictions(cohort: Manifest, tmp_path: Path) -> None:
    first = replace(cohort.rows[0], extra={"crp_mg_l": "51", "raw": "seen by AB", "manifest_raw": "x"})
    rows = [first, replace(cohort.rows[1], extra={"ward": "B; 2"})]
    evaluate_beside(cohort, rows, tmp_path)
    told = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert list(told[0])[-4:] == ["crp_mg_l", "manifest_raw", "manifest_manifest_raw", "ward"]
    assert [row["crp_mg_l"] for row in told] == ["51", ""] and [row["ward"] for row in told] == ["", "B; 2"]
    assert (told[0]["manifest_raw"], told[0]["manifest_manifest_raw"]) == ("seen by AB", "x")
    assert told[0]["raw"] == ""


def test_a_kept_score_follows_a_corrected_manifest(cohort: Manifest, tmp_path: Path) -> None:
    evaluate_beside(cohort, cohort.rows[:1], tmp_path)
    other = replace(cohort.rows[0], severity=1 - (cohort.rows[0].severity or 0), site="new", extra={"crp": "3"})
    found = evaluate_beside(cohort, [other], tmp_path)
    (told,) = csv.DictReader((tmp_path / "predictions.csv").open())
    assert (told["severity"], told["site"], told["crp"]) == (str(other.severity), "new", "3")
    assert found.scores[0].severity == other.severity


def test_masks_of_another_tool(cohort: Manifest, recoded: Manifest, tmp_path: Path) -> None:
    rows = [replace(row, lobes=other.lobes) for row, other in zip(cohort.rows[:2], recoded.rows, strict=False)]
    found = evaluate_beside(cohort, rows, tmp_path, lobe_codes="lungmask")
    ours = evaluate_beside(cohort, cohort.rows[:2], tmp_path / "ours")
    assert [s.overlap for s in found.scores] == [s.overlap for s in ours.scores]
    misread = evaluate_beside(cohort, rows, tmp_path)  # other codes: what was kept is not taken for theirs
    assert misread.scores[0].overlap["dsc"] != found.scores[0].overlap["dsc"]


def test_the_command_takes_lobe_codes(
    run: RunFolder, evaluation: tuple[Path, Evaluation], recoded: Manifest, tmp_path: Path
) -> None:
    row = recoded.rows[0]
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"scan_id,patient_id,image,lobes\n{row.scan_id},p,{row.image},{row.lobes}\n")
    call = ["evaluate", str(run.path), str(manifest), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert CliRunner().invoke(app, [*call, "--lobe-codes", "theirs"]).exit_code == 2
    assert CliRunner().invoke(app, [*call, "--lobe-codes", "lungmask"]).exit_code == 0
    (said,) = csv.DictReader((tmp_path / "out" / "predictions.csv").open())
    assert float(said["dsc"]) == pytest.approx(evaluation[1].scores[0].overlap["dsc"])


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


def test_cross_validation_skips_finished_folds(recoded: Manifest, tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config.model_copy(update={"train": tiny_config.train.model_copy(update={"epochs": 1})})
    prepare_cohort(recoded, tmp_path / "store", config.prepare, lobe_codes="lungmask")  # tested in the store's codes
    store = prepared_store(recoded, tmp_path / "store", config)
    job = CrossValidation(recoded, store, config, tmp_path / "cv")
    first = job.run(only=[0], folds=3)
    stamp = (tmp_path / "cv" / "fold0" / "model" / "weights.safetensors").stat().st_mtime_ns
    second = job.run(only=[0, 2], folds=3)
    assert (tmp_path / "cv" / "fold0" / "model" / "weights.safetensors").stat().st_mtime_ns == stamp
    assert first["dsc"].folds == 1 and second["dsc"].folds == 2
    summary = json.loads((tmp_path / "cv" / "summary.json").read_text())
    assert summary["folds"] == [0, 2]
    splits = job.splits()
    assert {s for split in splits for s in split.test} == {row.scan_id for row in recoded.rows}


def test_folds_are_trained_on_the_device_asked_for(
    cohort: Manifest, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def stop(job: object, *, world: World, progress: object) -> None:
        seen.append(str(world.device))
        raise RunError("enough")

    monkeypatch.setattr("m2unet.workflows.crossval.train_method", stop)
    store = Store.create(tmp_path / "store", tiny_config.prepare)
    for device in ("cpu", "cuda:1"):
        with pytest.raises(RunError, match="enough"):
            CrossValidation(cohort, store, tiny_config, tmp_path / "cv", device=device).run(folds=3)
    assert seen == ["cpu", "cuda:1"]
