"""Methods of one task learn from the scans that have its label; what is left out is stated."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m2unet.cli.main import app
from m2unet.cohort.folds import Split, hold_out
from m2unet.cohort.manifest import Manifest, read_manifest, write_manifest
from m2unet.cohort.store import Store
from m2unet.config import load_config
from m2unet.errors import RunError
from m2unet.models.methods import method
from m2unet.models.weights import load_model
from m2unet.workflows.crossval import CrossValidation
from m2unet.workflows.leakage import TRAINING_FILE
from m2unet.workflows.methods import train_method
from m2unet.workflows.store import prepared_store
from m2unet.workflows.train import EpochBags, TrainJob, train_run
from m2unet.workflows.usable import LEFT_OUT_FILE, ScanLabels, usable_scans
from tests.small_cohort import TINY

ONE_BAG = [*TINY, "train.epochs=1", "train.bags_per_step=1"]  # a step for each scan: every one has to have a loss


@pytest.fixture(scope="module")
def mixed(cohort: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The small cohort with labels missing in turn: both, severity alone, mask alone, neither."""
    rows = []
    for number, row in enumerate(cohort.rows):
        kind = (0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 0, 2, 1, 3)[number]
        severity = row.severity if kind in (0, 1) else None
        lobes = row.lobes if kind in (0, 2) else None
        rows.append(replace(row, severity=severity, grade=row.grade if severity is not None else None, lobes=lobes))
    path = tmp_path_factory.mktemp("mixed") / "manifest.csv"
    write_manifest(rows, path)
    return read_manifest(path)


@pytest.fixture(scope="module")
def store(mixed: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepared_store(mixed, tmp_path_factory.mktemp("mixed-store") / "store", load_config("demo", TINY))


def of_kind(mixed: Manifest, keep: Callable[..., bool]) -> set[str]:
    return {row.scan_id for row in mixed.rows if keep(row)}


LEARNS_FROM = {
    "seg_only": lambda row: row.lobes is not None,
    "unet": lambda row: row.lobes is not None,
    "unetpp": lambda row: row.lobes is not None,
    "cls_only": lambda row: row.severity is not None,
    "gated_mil": lambda row: row.severity is not None,
    "resnet50_max": lambda row: row.severity is not None,
    "tang": lambda row: row.severity is not None,
    "m2unet": lambda row: row.severity is not None or row.lobes is not None,
}


@pytest.mark.parametrize("name", list(LEARNS_FROM))
def test_every_method_trains_on_a_mixed_cohort(
    name: str, mixed: Manifest, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = ["handcrafted.trees=5", "handcrafted.lobe_model=unused"]
    config = load_config("demo", [*ONE_BAG, *more, *method(name).settings])
    split = Split(tuple(row.scan_id for row in mixed.rows), (), ())
    if name == "tang":  # measures lobe masks; the scans without one would need a model
        rows = tuple(row for row in mixed.rows if row.lobes is not None)
        mixed = Manifest(mixed.path, rows)
        store, split = Store(store.folder, rows), Split(tuple(row.scan_id for row in rows), (), ())
    with caplog.at_level(logging.INFO, "m2unet"):
        run = train_method(TrainJob(store, split, config, tmp_path / "run", "phantoms"))
    used = of_kind(mixed, LEARNS_FROM[name])
    assert 0 < len(used) < len(mixed.rows)
    card = json.loads((run.model / "model.json").read_text())
    assert card["training_scans"] == len(used)
    document = json.loads((run.path / LEFT_OUT_FILE).read_text())
    left = {row.scan_id for row in mixed.rows} - used
    assert document["used"]["train"] == len(used) and set(document["scans"]) == left
    (reason,) = document["reasons"]
    assert document["reasons"] == card["left_out_scans"] == {reason: len(left)}
    assert f"{len(left)} of {len(mixed.rows)} train scans left out" in caplog.text and reason in caplog.text
    seen = json.loads((run.path / TRAINING_FILE).read_text())["scans"]
    assert {scan["scan_id"] for scan in seen} == used
    assert f"{len(left)} were left out: {reason}" in (run.path / "MODEL_CARD.md").read_text()


def test_labels_that_a_method_needs() -> None:
    both, lobes, severity, nothing = (
        ScanLabels(True, 0),
        ScanLabels(True, None),
        ScanLabels(False, 1),
        ScanLabels(False, None),
    )
    assert [scan.missing({"lobes"}) for scan in (both, lobes)] == [None, None]
    assert [scan.missing({"lobes"}) for scan in (severity, nothing)] == ["no lobe mask"] * 2
    assert [scan.missing({"severity"}) for scan in (both, severity)] == [None, None]
    assert [scan.missing({"severity"}) for scan in (lobes, nothing)] == ["no severity"] * 2
    assert [scan.missing({"severity", "lobes"}) for scan in (both, lobes, severity)] == [None] * 3
    assert nothing.missing({"severity", "lobes"}) == "neither lobe mask nor severity"


def test_severe_scans_are_balanced_among_those_that_are_used(mixed: Manifest, store: Store, tmp_path: Path) -> None:
    config = load_config("demo", [*ONE_BAG, "model.name=seg_only"])
    whole = Split(tuple(row.scan_id for row in mixed.rows), (), ())
    used = usable_scans(store, whole, {"lobes"}).split
    bags = EpochBags(TrainJob(store, used, config, tmp_path, ""))(0).scan_ids  # type: ignore[attr-defined]
    masked = [row for row in mixed.rows if row.lobes is not None]
    plain = sum(row.severity == 0 for row in masked)
    severe = [row.scan_id for row in masked if row.severity == 1]
    assert set(bags) == {row.scan_id for row in masked}
    assert sum(scan in severe for scan in bags) == max(plain, len(severe))


def test_validation_scans_without_a_label_are_left_out_too(mixed: Manifest, store: Store, tmp_path: Path) -> None:
    config = load_config("demo", [*ONE_BAG, "model.name=seg_only"])
    split = hold_out(mixed.rows, share=0.3, seed=0, label="lobes")
    run = train_run(TrainJob(store, split, config, tmp_path / "run", "phantoms"))
    document = json.loads((run.path / LEFT_OUT_FILE).read_text())
    masked = of_kind(mixed, LEARNS_FROM["seg_only"])
    assert document["used"]["validation"] == len(masked & set(split.validation)) > 0
    assert load_model(run.model).card["validation"]["dsc"] is not None
    assert json.loads(run.split_file.read_text())["validation"] == list(split.validation)


def test_without_a_usable_validation_scan_the_user_is_told(
    mixed: Manifest, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    masked = of_kind(mixed, LEARNS_FROM["seg_only"])
    by_patient = {row.patient_id for row in mixed.rows if row.scan_id not in masked}
    bare = [row for row in mixed.rows if row.patient_id in by_patient and row.scan_id not in masked]
    held = next(row for row in bare if not any(r.patient_id == row.patient_id and r.lobes for r in mixed.rows))
    train = tuple(row.scan_id for row in mixed.rows if row.patient_id != held.patient_id)
    config = load_config("demo", [*ONE_BAG, "model.name=seg_only", "train.early_stop=1"])
    train_run(TrainJob(store, Split(train, (held.scan_id,), ()), config, tmp_path / "run", "phantoms"))
    assert "nothing is validated" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"), [("seg_only", "lobe mask"), ("m2unet", "lobe mask"), ("cls_only", "both")]
)
def test_no_usable_scan_is_an_error_before_anything_is_made(
    name: str, message: str, mixed: Manifest, store: Store, tmp_path: Path
) -> None:
    unknown = {"severity": None, "grade": None} if name == "cls_only" else {}
    rows = tuple(replace(row, lobes=None, **unknown) for row in mixed.rows)
    bare = Manifest(mixed.path, rows)
    prepared = prepared_store(bare, tmp_path / "store", load_config("demo", TINY))
    config = load_config("demo", [*ONE_BAG, f"model.name={name}"])
    split = Split(tuple(row.scan_id for row in rows), (), ())
    with pytest.raises(RunError, match=message):
        train_run(TrainJob(prepared, split, config, tmp_path / "run", "phantoms"))
    assert not (tmp_path / "run").exists()
    write_manifest(rows, tmp_path / "bare.csv")
    call = ["train", str(tmp_path / "bare.csv"), "--model", name, "--preset", "demo", "--out", str(tmp_path / "cli")]
    result = CliRunner().invoke(app, call)
    assert isinstance(result.exception, RunError) and message in str(result.exception)
    assert not (tmp_path / "cli").exists(), "nothing was prepared"


def test_cross_validation_for_lobes_shares_the_masks_among_the_folds(
    mixed: Manifest, store: Store, tmp_path: Path
) -> None:
    config = load_config("demo", [*ONE_BAG, "model.name=seg_only"])
    job = CrossValidation(mixed, store, config, tmp_path, trained_on="phantoms")
    splits = job.splits(3)
    masked = of_kind(mixed, LEARNS_FROM["seg_only"])
    for split in splits:
        assert masked & set(split.test) and masked & set(split.train)
    found = job.run(only=[0], progress=None)
    assert found["dsc"].mean is not None
    summary = json.loads((tmp_path / "fold0" / "summary.json").read_text())
    assert summary["figures"]["scans"] == len(masked & set(splits[0].test))
    assert (tmp_path / "fold0" / LEFT_OUT_FILE).is_file()


def test_a_fold_that_tests_no_scan_with_a_mask_has_no_figures(mixed: Manifest, store: Store, tmp_path: Path) -> None:
    masked = of_kind(mixed, LEARNS_FROM["seg_only"])
    bare = tuple(row.scan_id for row in mixed.rows if row.scan_id not in masked)
    config = load_config("demo", [*ONE_BAG, "model.name=seg_only"])
    job = CrossValidation(mixed, store, config, tmp_path, by="scan", trained_on="phantoms")
    found = job.run_fold(0, Split(tuple(sorted(masked)), (), bare))
    assert found.get("dsc") is None
    assert json.loads((tmp_path / "fold0" / "summary.json").read_text())["figures"]["scans"] == 0


def test_the_command_trains_lobes_on_the_scans_with_a_mask(mixed: Manifest, tmp_path: Path) -> None:
    changes = [part for setting in [*ONE_BAG, "train.validate_every=1"] for part in ("--set", setting)]
    call = ["train", str(mixed.path), "--model", "seg_only", "--preset", "demo", *changes, "--device", "cpu"]
    result = CliRunner().invoke(app, [*call, "--out", str(tmp_path / "run"), "--validation", "0.25"])
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "run" / LEFT_OUT_FILE).read_text())
    assert f"Trained on {document['used']['train']} scans" in result.output
    assert "left out, which this method cannot learn from: no lobe mask" in result.output.replace("\n", " ")
