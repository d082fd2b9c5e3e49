"""A small phantom cohort and a model trained on it for a moment, made once a session."""

from __future__ import annotations

import pytest

from m2unet.cohort.folds import hold_out
from m2unet.cohort.manifest import Manifest, read_manifest
from m2unet.config import Config, load_config
from m2unet.phantom.cohort import CohortConfig, plan_cohort
from m2unet.phantom.writer import write_cohort
from m2unet.workflows.run_folder import RunFolder
from m2unet.workflows.store import prepared_store
from m2unet.workflows.train import TrainJob, train_run

TINY = [
    "bag.size=6",
    "bag.patch=32",
    "bag.test_bags=2",
    "model.width=4",
    "model.deep_width=8",
    "model.instance_concepts=8",
    "model.bag_concepts=4",
    "prepare.inplane_mm=5",
    "prepare.min_box=32",
    "train.epochs=2",
    "train.validate_every=1",
]


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Fourteen small phantoms of seven patients, all with lobes."""
    config = CohortConfig(size="small", scans=14, patients=8, severe_fraction=0.5, lobe_masks="all")
    return read_manifest(write_cohort(plan_cohort(config, 3), tmp_path_factory.mktemp("cohort"), workers=1))


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """The demo's preset, smaller still."""
    return load_config("demo", TINY)


@pytest.fixture(scope="session")
def run(cohort: Manifest, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run on that cohort."""
    folder = tmp_path_factory.mktemp("run")
    store = prepared_store(cohort, folder / "store", tiny_config)
    split = hold_out(cohort.rows, share=0.25, seed=0)
    return train_run(TrainJob(store, split, tiny_config, folder / "out", "phantoms"))
