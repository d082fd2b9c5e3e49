"""Lobes from one public data set, severity from another: imported, combined and trained through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from m2unet.cli.main import app
from m2unet.cohort.folds import Split
from m2unet.cohort.manifest import read_manifest
from m2unet.config import load_config
from m2unet.models.weights import load_model
from m2unet.workflows.store import prepared_store
from m2unet.workflows.train import TrainJob, train_run
from tests.cohort.importers import trees
from tests.small_cohort import TINY


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixture")
    runner = CliRunner()
    trees.totalsegmentator(folder / "ts")
    trees.mosmed(folder / "mm")
    for name, root, out in (("totalsegmentator", "ts", "lobes.csv"), ("mosmed", "mm", "mosmed.csv")):
        done = runner.invoke(app, ["import", name, str(folder / root), "--out", str(folder / out)])
        assert done.exit_code == 1, done.output  # both trees hold faults on purpose
        assert "fault(s)" in done.output
    done = runner.invoke(
        app, ["combine", str(folder / "lobes.csv"), str(folder / "mosmed.csv"), "--out", str(folder / "all.csv")]
    )
    assert done.exit_code == 0 and "7 scans, 2 with lobes, 2 severe, 3 non-severe" in done.output, done.output
    return folder / "all.csv"


def test_a_model_learns_both_tasks_from_a_mixture(mixture: Path, tmp_path: Path) -> None:
    cohort = read_manifest(mixture)
    config = load_config("demo", [*TINY, "train.epochs=1"])
    store = prepared_store(cohort, tmp_path / "store", config)
    scans = [store.open(row.scan_id) for row in cohort.rows]
    assert [scan.lobes is not None for scan in scans] == [row.lobes is not None for row in cohort.rows]
    assert not any(scan.lobes is not None and scan.severity >= 0 for scan in scans)  # no scan has both labels
    split = Split(train=tuple(row.scan_id for row in cohort.rows), validation=(), test=())
    run = train_run(TrainJob(store, split, config, tmp_path / "run", "a mixture"))
    assert run.finished and load_model(run.model).card["training_scans"] == 7


def test_wrong_use_is_exit_code_2(tmp_path: Path) -> None:
    runner = CliRunner()
    for options in (["--severe-from", "CT-0"], ["--codes", "other"]):
        done = runner.invoke(app, ["import", "mosmed", str(tmp_path), "--out", str(tmp_path / "m.csv"), *options])
        assert done.exit_code == 2
