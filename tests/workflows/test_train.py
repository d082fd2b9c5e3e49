"""Training a run folder from a store."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from m2unet.cohort.folds import hold_out
from m2unet.cohort.manifest import Manifest
from m2unet.cohort.store import Store
from m2unet.config import Config, load_config
from m2unet.errors import RunError, StoreError
from m2unet.models.weights import load_model
from m2unet.workflows.run_folder import RunFolder
from m2unet.workflows.store import prepared_store
from m2unet.workflows.train import TrainJob, check_labels, seeded_model, train_run
from m2unet.workflows.validation import BagValidator
from tests.small_cohort import TINY


def test_a_run_folder_holds_what_made_the_model(run: RunFolder, tiny_config: Config) -> None:
    assert run.finished
    assert load_config(run.config_file) == tiny_config
    split = json.loads(run.split_file.read_text())
    assert split["schema"] == "m2unet.split/1" and split["train"] and split["validation"]
    assert json.loads((run.path / "versions.json").read_text())["torch"] == torch.__version__
    rows = list(csv.DictReader((run.path / "metrics.csv").open()))
    assert len(rows) == 2 and float(rows[-1]["val_score"]) >= 0
    card = load_model(run.model).card
    assert card["trained_on"] == "phantoms" and card["training_scans"] == len(split["train"])
    assert not (run.path / "state.pt").exists()


def test_a_finished_run_is_left_as_it_is(run: RunFolder, cohort: Manifest, tiny_config: Config) -> None:
    before = (run.model / "weights.safetensors").read_bytes()
    store = Store(run.path.parent / "store", cohort.rows)
    split = hold_out(cohort.rows, share=0.25, seed=0)
    train_run(TrainJob(store, split, tiny_config, run.path, "phantoms", resume=True))
    assert (run.model / "weights.safetensors").read_bytes() == before
    with pytest.raises(RunError, match="already holds a run"):
        train_run(TrainJob(store, split, tiny_config, run.path, "phantoms"))
    other = load_config("demo", [*TINY, "train.lr=0.5"])
    with pytest.raises(RunError, match=r"train\.lr: 0\.002 before, 0\.5 now"):
        train_run(TrainJob(store, split, other, run.path, "phantoms", resume=True))
    moved = hold_out(cohort.rows, share=0.25, seed=1)
    with pytest.raises(RunError, match="other scans"):
        train_run(TrainJob(store, moved, tiny_config, run.path, "phantoms", resume=True))


def test_the_same_seed_gives_the_same_weights(
    run: RunFolder, cohort: Manifest, tiny_config: Config, tmp_path: Path
) -> None:
    store = Store(run.path.parent / "store", cohort.rows)
    split = hold_out(cohort.rows, share=0.25, seed=0)
    again = train_run(TrainJob(store, split, tiny_config, tmp_path / "again", "phantoms"))
    assert load_model(again.model).card["weights_sha256"] == load_model(run.model).card["weights_sha256"]


def test_labels_that_are_missing_are_named_before_training(run: RunFolder, cohort: Manifest) -> None:
    store = Store(run.path.parent / "store", cohort.rows)
    severe = [row.scan_id for row in cohort.rows if row.severity == 1]
    model = seeded_model(load_config("demo", TINY))
    with pytest.raises(RunError, match="both classes"):
        check_labels(store, severe, model)


def test_scans_that_cannot_be_prepared_stop_the_training_with_all_reasons(
    cohort: Manifest, tiny_config: Config, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"nothing")
    from dataclasses import replace

    rows = (cohort.rows[0], replace(cohort.rows[1], image=bad))
    with pytest.raises(StoreError, match=rows[1].scan_id):
        prepared_store(Manifest(cohort.path, rows), tmp_path / "store", tiny_config)


def test_validation_scores_lobes_and_severity(run: RunFolder, cohort: Manifest, tiny_config: Config) -> None:
    store = Store(run.path.parent / "store", cohort.rows)
    loaded = load_model(run.model)
    scan_ids = [row.scan_id for row in cohort.rows]
    validator = BagValidator(store, scan_ids, tiny_config, torch.device("cpu"))
    first = validator(loaded.model)
    assert first == validator(loaded.model)
    assert first["auc"] is not None and first["dsc"] is not None
    assert first["score"] == pytest.approx(np.mean([first["auc"], first["dsc"]]))
    assert BagValidator(store, [], tiny_config, torch.device("cpu"))(loaded.model) == {
        "auc": None,
        "dsc": None,
        "score": None,
    }
