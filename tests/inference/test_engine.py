"""Every engine agrees with float32 on a trained network."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from m2unet.cohort.folds import hold_out
from m2unet.cohort.manifest import Manifest
from m2unet.config import load_config
from m2unet.errors import ConfigError, ModelError
from m2unet.inference.engine import ENGINES, EngineM2UNet, accelerate, fold
from m2unet.inference.predictor import Predictor
from m2unet.models.m2unet import M2UNet
from m2unet.models.precision import native_bf16
from m2unet.models.registry import build_model
from m2unet.workflows.run_folder import RunFolder
from m2unet.workflows.store import prepared_store
from m2unet.workflows.train import TrainJob, train_run
from tests.small_cohort import TINY

CPU = torch.device("cpu")
FAST = [
    pytest.param("torch"),
    pytest.param("openvino", marks=pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")),
]


LEARNED = ["model.width=8", "model.deep_width=16", "bag.size=12", "train.epochs=60", "train.validate_every=60"]


@pytest.fixture(scope="module")
def trained(cohort: Manifest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run long enough for the network to be sure of its lobes."""
    config = load_config("demo", [*TINY, *LEARNED])
    folder = tmp_path_factory.mktemp("trained")
    store = prepared_store(cohort, folder / "store", config)
    split = hold_out(cohort.rows, share=0.25, seed=0)
    return train_run(TrainJob(store, split, config, folder / "out", "phantoms"))


def small_model(seed: int = 0, name: str = "m2unet") -> M2UNet:
    torch.manual_seed(seed)
    sizes = ["model.width=8", "model.deep_width=16", "model.instance_concepts=8", "model.bag_concepts=4"]
    model = build_model(load_config("paper", [*sizes, f"model.name={name}"]).model)
    assert isinstance(model, M2UNet)
    for module in model.modules():  # statistics unlike the initial ones, so that folding is put to the test
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * int(((a == b) & (a > 0)).sum()) / max(int((a > 0).sum() + (b > 0).sum()), 1)


@pytest.mark.parametrize("engine", FAST)
def test_masks_and_severity_agree_with_float32(engine: str, trained: RunFolder, cohort: Manifest) -> None:
    reference, fast = Predictor.load(trained.path), Predictor.load(trained.path, engine=engine)
    assert fast.identity.engine != reference.identity.engine
    for row in cohort.rows[:3]:
        expected, found = reference.predict(row.image), fast.predict(row.image)
        assert expected.lobes is not None and found.lobes is not None
        assert expected.severity is not None and found.severity is not None
        assert (expected.lobes > 0).mean() > 0.02
        assert dice(expected.lobes, found.lobes) >= 0.99
        assert found.severity.probability == pytest.approx(expected.severity.probability, abs=0.01)


@torch.inference_mode()
def test_folding_is_exact_but_for_rounding() -> None:
    images = torch.rand(2, 1, 48, 32)
    expected = small_model().segment(images)
    torch.testing.assert_close(fold(small_model()).segment(images), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.gpu
def test_a_gpu_gives_the_same_lobes() -> None:
    images = torch.rand(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    model = small_model()
    with torch.inference_mode():
        expected = model.segment(images)
        found, name = accelerate(small_model().cuda(), "torch", torch.device("cuda"))
        logits = found.segment(images.cuda()).float().cpu()  # type: ignore[operator]
    assert name.startswith("torch")
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()  # bf16


@pytest.mark.parametrize("engine", FAST)
def test_an_engine_takes_any_size_and_number(engine: str) -> None:
    model = small_model()
    network, _ = accelerate(model, engine, CPU)
    for shape in ((1, 1, 16, 64), (3, 1, 48, 32), (1, 1, 80, 16)):
        images = torch.rand(shape)
        found, expected = network.segment(images).float(), model.segment(images)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 0.05 * expected.abs().max()
        close = (network.embed(images) - model.embed(images)).abs().max()
        assert close < 0.05 * model.embed(images).abs().max()


@torch.inference_mode()
def test_the_reference_is_the_network_itself_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from m2unet.inference import engine

    monkeypatch.setattr(engine, "CHUNK_PIXELS", 2 * 32 * 32)
    model = small_model()
    network, name = accelerate(model, "reference", CPU)
    images = torch.rand(5, 1, 32, 32)
    torch.testing.assert_close(network.embed(images), model.embed(images), rtol=1e-5, atol=1e-6)
    assert name == "torch-float32" and isinstance(network, EngineM2UNet)
    maps, found = model.encode(images), network.encode(images)
    assert len(found) == 2 and found[1].shape == maps[-1].shape
    means = torch.cat([each.mean(dim=(2, 3)) for each in maps[:-1]], dim=1)
    torch.testing.assert_close(found[0][:, :, 0, 0], means, rtol=1e-5, atol=1e-6)


def test_a_half_has_no_more_than_its_task() -> None:
    network, _ = accelerate(small_model(name="cls_only"), "torch", CPU)
    with pytest.raises(ModelError, match="no lobes"):
        network.segment(torch.rand(1, 1, 16, 16))
    network, _ = accelerate(small_model(name="seg_only"), "torch", CPU)
    with pytest.raises(ModelError, match="no severity"):
        network.embed(torch.rand(1, 1, 16, 16))


def test_unknown_engines_and_devices_are_refused() -> None:
    with pytest.raises(ConfigError, match="no such engine"):
        accelerate(small_model(), "magic", CPU)
    assert "auto" in ENGINES and native_bf16(CPU) in (True, False)


def test_a_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from m2unet.inference import engine

    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install"):
        accelerate(small_model(), "openvino", CPU)
    _, name = accelerate(small_model(), "auto", CPU)
    assert name.startswith("torch")
