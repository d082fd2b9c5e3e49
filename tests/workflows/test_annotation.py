"""Proposals, corrections and retraining on phantoms."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from m2unet.anatomy import UNDECIDED
from m2unet.cli.main import app
from m2unet.cohort.corrections import FORGIVABLE
from m2unet.cohort.manifest import Manifest, read_manifest, write_manifest
from m2unet.cohort.masks import read_lobe_mask, read_mask
from m2unet.ct.read import read_scan
from m2unet.ct.write import write_mask
from m2unet.errors import ConfigError, ManifestError, RunError
from m2unet.export.annotators import write_segmentation
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor, packaged_model
from m2unet.inference.uncertainty import propose_lobes
from m2unet.phantom.course import CourseConfig, plan_course
from m2unet.phantom.writer import write_cohort
from m2unet.workflows.annotation import AnnotationFolder, propose_masks
from m2unet.workflows.corrections import take_corrections
from m2unet.workflows.leakage import read_training
from m2unet.workflows.retrain import RetrainOptions, retrain, training_rows
from m2unet.workflows.run_folder import RunFolder
from tests.phantom.conftest import shrunk_plan


@pytest.fixture(scope="module")
def bare(cohort: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The small cohort, four scans of which have lost their lobe masks."""
    rows = [replace(row, lobes=None) if number < 4 else row for number, row in enumerate(cohort.rows)]
    path = tmp_path_factory.mktemp("bare") / "manifest.csv"
    write_manifest(rows, path)
    return read_manifest(path)


@pytest.fixture(scope="module")
def proposed(bare: Manifest, run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> AnnotationFolder:
    folder = AnnotationFolder(tmp_path_factory.mktemp("proposals"))
    propose_masks(bare, run.path, folder.path)
    return folder


@pytest.fixture
def folder(proposed: AnnotationFolder, tmp_path: Path, bare: Manifest) -> AnnotationFolder:
    """A copy to work in."""
    copy = AnnotationFolder(tmp_path / "proposals")
    shutil.copytree(proposed.path, copy.path)
    index = json.loads(copy.index.read_text())
    copy.index.write_text(json.dumps({**index, "manifest": str(bare.path)}))
    return copy


def truth(cohort: Manifest, scan_id: str) -> tuple:
    row = cohort.by_id(scan_id)
    volume = read_scan(row.image)
    assert row.lobes is not None
    return volume, read_lobe_mask(row.lobes, volume)


def test_scans_without_a_mask_are_proposed_and_ranked(proposed: AnnotationFolder, bare: Manifest) -> None:
    rows = list(csv.DictReader(proposed.ranking.open()))
    assert {row["scan_id"] for row in rows} == {row.scan_id for row in bare.rows if row.lobes is None}
    doubts = [float(row["doubt"]) for row in rows]
    assert doubts == sorted(doubts, reverse=True)
    scan_id = rows[0]["scan_id"]
    scan = sitk.ReadImage(str(bare.by_id(scan_id).image))
    masks = [sitk.ReadImage(str(proposed.proposal(scan_id, ending))) for ending in (".nii.gz", ".seg.nrrd")]
    for mask in masks:
        assert mask.GetSize() == scan.GetSize()
        np.testing.assert_allclose(mask.GetOrigin(), scan.GetOrigin(), atol=1e-3)
    np.testing.assert_array_equal(*[sitk.GetArrayFromImage(mask) for mask in masks])
    assert "RUL right upper lobe" in (proposed.path / "labels.txt").read_text()
    assert proposed.corrected.is_dir() and "corrected/" in (proposed.path / "README.txt").read_text()


def test_proposals_are_kept_until_something_changes(proposed: AnnotationFolder, bare: Manifest, run: RunFolder) -> None:
    again = propose_masks(bare, run.path, proposed.path)
    assert all(one.skipped for one in again)
    stamps = {path: path.stat().st_mtime_ns for path in (proposed.path / "proposals").iterdir()}
    call = ["annotate", "propose", str(bare.path), "--model", str(run.path), "--out", str(proposed.path)]
    result = CliRunner().invoke(app, [*call, "--device", "cpu"])
    assert result.exit_code == 0 and f"1. {again[0].scan_id}: doubt" in result.output
    assert stamps == {path: path.stat().st_mtime_ns for path in (proposed.path / "proposals").iterdir()}


def test_a_bad_scan_and_a_whole_cohort(bare: Manifest, cohort: Manifest, run: RunFolder, tmp_path: Path) -> None:
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"nothing")
    rows = (replace(bare.rows[0], image=bad), bare.rows[1])
    ranked = propose_masks(Manifest(bare.path, rows), run.path, tmp_path / "out")
    assert [one.doubt is None for one in ranked] == [False, True] and ranked[1].error
    with pytest.raises(ManifestError, match="has a lobe mask"):
        propose_masks(cohort, run.path, tmp_path / "none")
    with pytest.raises(RunError, match="no proposals"):
        AnnotationFolder(tmp_path / "none").read_index()


def test_sound_corrections_are_taken_and_all_faults_of_others_listed(
    folder: AnnotationFolder, cohort: Manifest, bare: Manifest
) -> None:
    first, second, third, fourth = (row.scan_id for row in bare.rows[:4])
    volume, mask = truth(cohort, first)
    write_segmentation(volume, mask, folder.corrected / f"{first}.seg.nrrd")
    volume, mask = truth(cohort, second)
    swapped = np.choose(mask, [0, 4, 0, 5, 1, 3, 6]).astype(np.uint8)
    write_mask(volume, swapped, folder.corrected / f"{second}.nii.gz")
    volume, mask = truth(cohort, third)
    foreign = sitk.GetImageFromArray(np.where(mask == 1, 9, mask)[1:].astype(np.uint8))
    sitk.WriteImage(foreign, str(folder.corrected / f"{third}.mha"))
    shutil.copy(folder.proposal(fourth), folder.corrected / f"{fourth}.nii.gz")
    shutil.copy(folder.proposal(fourth), folder.corrected / "somebody.nii.gz")
    found = {one.file: one for one in take_corrections(folder)}
    assert found[f"{first}.seg.nrrd"].usable
    faults = {fault.code for fault in found[f"{second}.nii.gz"].checked.faults}  # type: ignore[union-attr]
    assert faults >= {"sides", "missing"}
    error = found[f"{third}.mha"].error or ""
    assert "grid" in error and "[9]" in error, "the grid and the codes are both told"
    assert found[f"{fourth}.nii.gz"].changed_share == 0
    assert "no scan" in (found["somebody.nii.gz"].error or "")
    manifest = read_manifest(folder.manifest)
    assert manifest.by_id(first).lobes == folder.taken(first)
    assert manifest.by_id(second).lobes is None
    volume, mask = truth(cohort, first)
    np.testing.assert_array_equal(read_lobe_mask(folder.taken(first), volume), mask)
    document = json.loads((folder.path / "corrections.json").read_text())
    assert {one["file"]: one["taken"] for one in document["masks"]}[f"{first}.seg.nrrd"] is True
    result = CliRunner().invoke(app, ["annotate", "take", str(folder.path)])
    assert result.exit_code == 1 and "sides:" in result.output and f"{first}.seg.nrrd: taken" in result.output
    with pytest.raises(ConfigError, match="cannot be accepted"):
        take_corrections(folder, ["grid"])


def test_nothing_to_take_is_a_clear_error(folder: AnnotationFolder) -> None:
    with pytest.raises(ConfigError, match="no corrected mask"):
        take_corrections(folder)
    with pytest.raises(RunError, match="--self-train"):
        training_rows(folder, folder.read_config(), RetrainOptions())


def test_retraining_uses_corrections_and_confident_pixels(
    folder: AnnotationFolder, cohort: Manifest, bare: Manifest, tmp_path: Path
) -> None:
    first = bare.rows[0].scan_id
    volume, mask = truth(cohort, first)
    write_mask(volume, mask, folder.corrected / f"{first}.nii.gz")
    assert take_corrections(folder)[0].usable
    scan_id = bare.rows[1].scan_id
    volume = read_scan(bare.rows[1].image)
    half = read_mask(folder.proposal(scan_id), volume).astype(np.uint8)
    half[:, : half.shape[1] // 2] = UNDECIDED
    half[:, half.shape[1] // 2 :, : half.shape[2] // 2] = np.maximum(
        1, half[:, half.shape[1] // 2 :, : half.shape[2] // 2]
    )
    for row in bare.rows[1:4]:
        shutil.copy(folder.proposal(row.scan_id), folder.confident(row.scan_id))
    write_mask(volume, half, folder.confident(scan_id))
    config = folder.read_config().model_copy(
        update={"train": folder.read_config().train.model_copy(update={"epochs": 1})}
    )
    plain = training_rows(folder, config, RetrainOptions(validation=0.0))
    assert plain.corrected == (first,) and plain.self_trained == ()
    run, used = retrain(folder, config, tmp_path / "run", RetrainOptions(self_train=True, validation=0.25))
    assert run.finished and used.corrected == (first,)
    assert set(used.self_trained) <= {row.scan_id for row in bare.rows[1:4]}
    held = set(used.split.validation)
    by_id = {row.scan_id: row for row in used.rows}
    assert all(by_id[scan].lobes != folder.confident(scan) for scan in held)
    card = json.loads((run.model / "model.json").read_text())
    assert "phantoms" in card["trained_on"] and "corrected" in card["trained_on"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Two scans on few voxels, one with its lobe mask."""
    plan = plan_course(CourseConfig(patients=1, scans=2, severe_fraction=1.0), seed=3)
    manifest = read_manifest(write_cohort(shrunk_plan(plan, 72, 24), tmp_path_factory.mktemp("few"), workers=1))
    rows = [replace(manifest.rows[0], lobes=None), manifest.rows[1]]
    write_manifest(rows, manifest.path)
    return read_manifest(manifest.path)


def test_the_shipped_model_proposes_and_learns_on(phantoms: Manifest, cohort: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "drawing"
    call = ["annotate", "propose", str(phantoms.path), "--out", str(out), "--device", "cpu"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    folder, scan_id = AnnotationFolder(out), phantoms.rows[0].scan_id
    (row,) = csv.DictReader(folder.ranking.open())
    assert row["scan_id"] == scan_id and 0 < float(row["doubt"]) < 1 and 0 < float(row["sure_share"]) <= 1
    volume = read_scan(phantoms.rows[0].image)
    shipped = Predictor.load()
    found = shipped.predict(volume)
    assert found.lobes is not None and found.severity is None
    tidied = postprocess_lobes(found.lobes, volume.voxel_ml).mask
    np.testing.assert_array_equal(read_lobe_mask(folder.proposal(scan_id), volume, "m2unet"), tidied)
    assert json.loads(folder.index.read_text())["model"]["weights_sha256"] == shipped.identity.weights_sha256
    by_path = CliRunner().invoke(app, [*call, "--model", str(packaged_model())])
    assert by_path.exit_code == 0 and propose_masks(phantoms, None, out)[0].skipped

    shutil.copy(folder.proposal(scan_id), folder.corrected / f"{scan_id}.nii.gz")
    accept = [part for fault in FORGIVABLE for part in ("--accept", fault)]
    assert CliRunner().invoke(app, ["annotate", "take", str(out), *accept]).exit_code == 0
    again = ["annotate", "retrain", str(out), "--out", str(tmp_path / "run"), "--device", "cpu"]
    for wrong in (["--self-train"], ["--epochs", "2"], ["--set", "train.lr=1"]):
        refused = CliRunner().invoke(app, [*again, *wrong])
        assert isinstance(refused.exception, ConfigError) and "preset" in str(refused.exception)
    done = CliRunner().invoke(app, [*again, "--steps", "1"])
    assert done.exit_code == 0, done.output
    assert "Trained on 2 scans, 1 of the cohort with corrected masks" in done.output
    assert {scan.patient_id for scan in read_training(tmp_path / "run") or ()} == {phantoms.rows[0].patient_id}


def test_confident_pixels_of_the_shipped_model(phantoms: Manifest) -> None:
    volume, shipped = read_scan(phantoms.rows[0].image), Predictor.load()
    always, never, usual = (propose_lobes(shipped, volume, confident_from=share) for share in (0.0, 1.01, 0.9))
    np.testing.assert_array_equal(always.confident, always.lobes)
    assert always.sure_share == 1.0 and never.sure_share == 0.0
    assert set(np.unique(never.confident)) == {0, UNDECIDED}
    sure = usual.confident != UNDECIDED
    np.testing.assert_array_equal(usual.confident[sure], usual.lobes[sure])
    assert always.doubt == never.doubt == usual.doubt and 0 < usual.doubt < 1
