"""A full disk, played by a limit on the size of files: a clear error, and nothing half-written."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from m2unet.cohort.manifest import Manifest
from m2unet.config import Config, load_config
from m2unet.ct.write import write_mask, write_volume
from m2unet.errors import M2UNetError
from m2unet.files import write_json
from m2unet.inference.predictor import Predictor
from m2unet.models.registry import build_model
from m2unet.models.weights import save_model
from m2unet.training.state import TrainingState, load_state, save_state
from m2unet.workflows.case import CaseOptions
from m2unet.workflows.predict import find_cases, predict_cases
from m2unet.workflows.run_folder import RunFolder
from m2unet.workflows.store import prepared_store
from tests.inference.conftest import chest


@contextmanager
def full_disk(size: int = 2048) -> Iterator[None]:
    """No file can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def leftovers(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_images(tmp_path: Path, ending: str) -> None:
    volume = chest()
    noise = np.random.default_rng(0).integers(0, 6, volume.shape, dtype=np.uint8)
    with full_disk():
        with pytest.raises(M2UNetError):
            write_mask(volume, noise, tmp_path / f"mask{ending}")
        with pytest.raises(M2UNetError):
            write_volume(volume, tmp_path / f"volume{ending}")
    assert leftovers(tmp_path) == []


def test_models_and_states_keep_what_was_there(tmp_path: Path) -> None:
    config = load_config("paper", ["model.width=4", "model.deep_width=8"])
    model = build_model(config.model)
    save_model(model, config, tmp_path)
    save_state(TrainingState(epoch=3, model=model.state_dict()), tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in leftovers(tmp_path)}
    with full_disk(), pytest.raises(M2UNetError):
        save_model(model, config, tmp_path)
    with full_disk(), pytest.raises(M2UNetError):
        save_state(TrainingState(epoch=4, model={"w": torch.zeros(10000)}), tmp_path)
    with full_disk(8), pytest.raises(M2UNetError):
        write_json(tmp_path / "model.json", {"a": "long enough"})
    assert {name: (tmp_path / name).read_bytes() for name in leftovers(tmp_path)} == before
    state = load_state(tmp_path)
    assert state is not None and state.epoch == 3


def test_the_store_begins_again(cohort: Manifest, tiny_config: Config, tmp_path: Path) -> None:
    few = replace(cohort, rows=cohort.rows[:2])
    with full_disk(20_000), pytest.raises(M2UNetError):
        prepared_store(few, tmp_path / "store", tiny_config)
    assert not list(tmp_path.rglob("ct.npy"))
    store = prepared_store(few, tmp_path / "store", tiny_config)
    assert store.open(few.rows[0].scan_id).array.size


def test_a_prediction_fails_and_says_so(run: RunFolder, cohort: Manifest, tmp_path: Path) -> None:
    predictor, cases = Predictor.load(run.path), find_cases([cohort.rows[0].image])
    with full_disk(300):
        (outcome,) = predict_cases(predictor, cases, tmp_path, CaseOptions(montage=False, report=False))
    assert outcome.error is not None and outcome.result is None
    assert "result.json" not in str(leftovers(tmp_path)) and ".tmp" not in str(leftovers(tmp_path))
    (outcome,) = predict_cases(predictor, cases, tmp_path, CaseOptions(montage=False, report=False))
    assert outcome.error is None
