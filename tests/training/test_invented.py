"""Training on invented slices: resumable bit for bit, a sound loss, a sound schedule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from m2unet.config import load_config
from m2unet.inference.predictor import Predictor
from m2unet.models.chest_unet import ChestUNet
from m2unet.models.weights import save_model
from m2unet.phantom.randomised.pool import ChestPool, build_pool
from m2unet.phantom.randomised.samples import Knobs
from m2unet.phantom.randomised.space import SpaceKnobs
from m2unet.training.invented import Drawing, InventedTraining, train_invented
from m2unet.training.invented_losses import (
    FISSURE_GAIN,
    fissure_loss,
    height_loss,
    near_borders,
    segmentation_loss,
)
from m2unet.training.slabs import SlabSource
from m2unet.workflows.leakage import KnownScan, read_training, write_training
from m2unet.workflows.synthetic import SyntheticJob, read_curve, train_synthetic

SETTINGS = InventedTraining(steps=4, slabs=1, warmup=2, save_every=2, validate_every=4, validation_slabs=1, lr=1e-2)
KNOBS = Knobs(space=SpaceKnobs(size=(64, 96)))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ChestPool:
    return build_pool(tmp_path_factory.mktemp("pool"), 2, 1)


def test_resumed_training_gives_the_same_weights_with_any_workers(pool: ChestPool, tmp_path: Path) -> None:
    config = load_config("synthetic", ["model.width=4"])
    one = Drawing(ChestPool(pool.folder, 1), ChestPool(pool.folder, 1, first=1), KNOBS)
    seen: list[int] = []

    def stop(figures: object) -> None:
        seen.append(figures.step)  # type: ignore[attr-defined]
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_invented(one, config, SETTINGS, tmp_path / "a.pt", record=stop)
    resumed = train_invented(one, config, SETTINGS, tmp_path / "a.pt", record=lambda r: seen.append(r.step))
    whole = train_invented(replace(one, workers=2), config, SETTINGS, tmp_path / "b.pt")
    assert seen == [1, 2, 3, 3, 4]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_networks_with_less_context_get_fewer_neighbours(pool: ChestPool) -> None:
    window = load_config("synthetic").window
    near, far = (next(iter(SlabSource(pool, 0, window, KNOBS, c).batches(range(1), 1))) for c in (1, 3))
    assert near.images.shape[1] == 3 and far.images.shape[1] == 7
    assert len(near.images) >= len(far.images) and near.images.dtype == torch.float32


@pytest.mark.gpu
def test_gpu_training_ends_near_that_of_the_cpu(pool: ChestPool, tmp_path: Path) -> None:
    config = load_config("synthetic", ["model.width=4"])
    losses: dict[str, list[float]] = {"cpu": [], "cuda": []}
    for device, found in losses.items():
        drawing = Drawing(pool, knobs=KNOBS, workers=1, device=torch.device(device))
        train_invented(drawing, config, SETTINGS, tmp_path / f"{device}.pt", record=lambda r, f=found: f.append(r.loss))  # type: ignore[misc]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.05)


def test_workflow_writes_a_model_that_predicts(pool: ChestPool, tmp_path: Path) -> None:
    config = load_config("synthetic", ["model.width=4"])
    settings = replace(SETTINGS, steps=2, validation_slabs=6)
    job = SyntheticJob(
        tmp_path / "run", chests=1, held_out=1, settings=settings, config=config, pool=pool.folder, knobs=KNOBS
    )
    folder = train_synthetic(job)
    predictor = Predictor.load(folder)
    assert predictor.identity.trained_on is not None and "no patient" in predictor.identity.trained_on
    rows = read_curve(tmp_path / "run" / "curve.csv")
    assert [row["step"] for row in rows] == [1, 2] and rows[1]["val_lobe_dice"] is not None
    assert predictor.atlas is not None
    assert rows[1]["val_fissure_auc"] is not None
    onward = train_synthetic(replace(job, out=tmp_path / "onward", init=folder))
    card = json.loads((onward / "model.json").read_text())
    assert card["initial_weights_sha256"] == predictor.identity.weights_sha256 != card["weights_sha256"]
    assert read_training(tmp_path / "run") == read_training(onward) == [], "no patient's scan was seen"


def test_scans_seen_by_the_model_to_begin_with_are_handed_on(
    pool: ChestPool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config("synthetic", ["model.width=4"])
    first = save_model(ChestUNet(config.model), config, tmp_path / "first" / "model", {"trained_on": "20 scans"})
    settings = replace(SETTINGS, steps=1)
    job = SyntheticJob(
        tmp_path / "run", chests=1, held_out=1, settings=settings, config=config, pool=pool.folder, knobs=KNOBS
    )
    made = train_synthetic(replace(job, init=first))
    assert read_training(made) is None and "training_scans.json" in caplog.text
    assert json.loads((made / "model.json").read_text())["trained_on"] == "invented chest images, after 20 scans"
    seen = [KnownScan("s1", "p1", "hash", "training")]
    write_training(seen, tmp_path / "first")
    assert read_training(train_synthetic(replace(job, out=tmp_path / "onward", init=first))) == seen


def test_segmentation_loss_by_hand() -> None:
    labels = torch.tensor([[[0, 1], [1, 1]]])
    logits = torch.full((1, 7, 2, 2), -50.0)
    logits.scatter_(1, labels.unsqueeze(1), 50.0)
    assert float(segmentation_loss(logits, labels)) == pytest.approx(0, abs=1e-5)
    flat = torch.zeros(1, 7, 2, 2)
    dice = np.mean([(2 * n / 7 + 1) / (4 / 7 + n + 1) for n in (1, 3)])
    assert float(segmentation_loss(flat, labels)) == pytest.approx(np.log(7) + 1 - dice, abs=1e-5)


def test_borders_are_those_within_one_lung() -> None:
    labels = torch.zeros(1, 9, 12, dtype=torch.int64)
    labels[0, :, :6], labels[0, :, 6:] = 1, 4  # right and left lung side by side: no fissure there
    labels[0, 5:, :6] = 3
    truth = torch.nn.functional.one_hot(labels, 7).permute(0, 3, 1, 2).float()
    near = near_borders(truth)[0]
    assert near[2:8, :6].all() and not near[:2].any() and not near[8].any()
    assert not near[:, 9:].any()


def test_pixels_near_a_border_weigh_more() -> None:
    labels = torch.full((1, 16, 4), 4)
    labels[0, 8:] = 5
    logits = torch.zeros(1, 7, 16, 4)
    plain, weighed = segmentation_loss(logits, labels), segmentation_loss(logits, labels, 3.0)
    assert float(weighed - plain) == pytest.approx(3.0 * np.log(7) * 6 / 16, abs=1e-5)


def test_fissures_count_within_lobes_alone() -> None:
    labels = torch.tensor([[[0, 1, 1, 6]]])
    fissures = torch.tensor([[[True, True, False, False]]])
    logits = torch.tensor([[[9.0, 0.0, 0.0, 9.0]]])
    expected = (FISSURE_GAIN + 1) * np.log(2) / 2
    assert float(fissure_loss(logits, fissures, labels)) == pytest.approx(expected, abs=1e-6)
    assert float(fissure_loss(logits, None, labels)) == 0


def test_height_counts_only_where_hidden() -> None:
    place = torch.tensor([[0.0, 0.0], [5.0, 0.0]])
    heights = torch.tensor([0.5, 0.0])
    assert float(height_loss(place, heights, torch.tensor([True, False]))) == pytest.approx(0.5)
    assert float(height_loss(place, heights, torch.tensor([False, False]))) == 0


def test_rate_rises_holds_and_falls() -> None:
    settings = InventedTraining(steps=100, warmup=10, decay_from=0.5, lr=1.0)
    assert settings.rate(0) == pytest.approx(0.1)
    assert settings.rate(30) == 1.0
    assert settings.rate(75) == pytest.approx(0.5)
    assert settings.rate(100) == pytest.approx(0)
