"""The training loop: learns, repeats itself, resumes to the bit, stops early, stops on request."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from m2unet.bags.dataset import BagDataset
from m2unet.config import Config, load_config
from m2unet.errors import ConfigError, RunError
from m2unet.models.norm import BatchNorm
from m2unet.models.registry import build_model
from m2unet.training.distributed import World
from m2unet.training.fit import Fit, Hooks
from m2unet.training.interrupt import TrainingInterruptedError
from m2unet.training.state import STATE_FILE, load_state, save_state
from tests.training.conftest import SMALL, TinyStore


def make_fit(config: Config, store: TinyStore, folder: Path, hooks: Hooks | None = None) -> Fit:
    folder.mkdir(exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = build_model(config.model)
    ids = tuple(store.scans)
    return Fit(
        model, lambda epoch: BagDataset(store, ids, config.bag, seed=0, epoch=epoch), config, folder, None, hooks
    )


def weights(fit: Fit) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in fit.model.state_dict().items()}


def assert_equal_bits(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def test_the_loss_falls(store: TinyStore, tmp_path: Path) -> None:
    larger = ["bag.size=8", "model.deep_width=32", "model.instance_concepts=16", "model.bag_concepts=8"]
    rate = ["train.epochs=40", "train.optimiser=adamw", "train.lr=0.01", "train.bags_per_step=5"]
    config = load_config("paper", [*SMALL, *larger, *rate])
    state = make_fit(config, store, tmp_path).run()
    for name in ("loss_lobes", "loss_severity"):  # the last five: one step's rounding differs between processors
        assert np.mean([row[name] for row in state.history[-5:]]) < 0.7 * state.history[0][name]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == [str(i) for i in range(1, 41)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_seed_gives_the_same_weights_twice(store: TinyStore, config: Config, tmp_path: Path) -> None:
    first, second = (make_fit(config, store, tmp_path / name) for name in ("a", "b"))
    first.run()
    second.run()
    assert_equal_bits(weights(first), weights(second))


@pytest.mark.parametrize("setting", ["train.accumulate=1", "train.accumulate=2", "train.average=0.9"])
def test_interrupted_in_an_epoch_and_resumed_equals_undisturbed(store: TinyStore, tmp_path: Path, setting: str) -> None:
    config = load_config("paper", [*SMALL, setting, "train.epochs=3"])
    undisturbed = make_fit(config, store, tmp_path / "a")
    expected = undisturbed.run()

    def interrupt(done: int, total: int, loss: float) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterruptedError, match="--resume"):
        make_fit(config, store, tmp_path / "b", Hooks(on_step=interrupt)).run()
    resumed = make_fit(config, store, tmp_path / "b")
    found = resumed.run(resume=True)
    assert_equal_bits(weights(undisturbed), weights(resumed))
    drop = {"seconds"}
    assert [{k: v for k, v in row.items() if k not in drop} for row in expected.history] == [
        {k: v for k, v in row.items() if k not in drop} for row in found.history
    ]


def test_the_average_is_kept_and_validated_and_training_goes_on_from_its_own_weights(
    store: TinyStore, tmp_path: Path
) -> None:
    settings = [*SMALL, "train.epochs=2", "train.refresh_statistics=false"]
    plain = make_fit(load_config("paper", settings), store, tmp_path / "a")
    own: list[dict[str, torch.Tensor]] = [{n: p.detach().clone() for n, p in plain.model.named_parameters()}]

    def watch(done: int, total: int, loss: float) -> None:
        own.append({n: p.detach().clone() for n, p in plain.model.named_parameters()})

    plain.hooks = Hooks(on_step=watch)
    plain.run()
    expected = own[0]
    for step, after in enumerate(own[1:], 1):  # by hand: decay min(0.5, (1 + t) / (10 + t))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * after[name] for name in after}
    seen: list[dict[str, torch.Tensor]] = []

    def validate(model: nn.Module) -> dict[str, float | None]:
        seen.append({name: value.clone() for name, value in model.named_parameters()})
        return {"score": 0.0}

    averaged = make_fit(
        load_config("paper", [*settings, "train.average=0.5"]), store, tmp_path / "b", Hooks(validate=validate)
    )
    averaged.run()
    for found in (dict(averaged.model.named_parameters()), seen[-1]):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)
    assert not torch.equal(own[-1]["classifier.weight"], expected["classifier.weight"])


def test_loader_processes_change_nothing(store: TinyStore, config: Config, tmp_path: Path) -> None:
    alone = make_fit(config, store, tmp_path / "a")
    alone.run()
    helped = make_fit(
        config.model_copy(update={"train": config.train.model_copy(update={"workers": 2})}), store, tmp_path / "b"
    )
    helped.run()
    assert_equal_bits(weights(alone), weights(helped))


def test_early_stopping_keeps_the_best(store: TinyStore, tmp_path: Path) -> None:
    config = load_config("paper", [*SMALL, "train.epochs=10", "train.early_stop=2", "train.refresh_statistics=false"])
    scores = iter([0.5, 0.9, 0.8, 0.7, 0.6])
    seen: list[dict[str, torch.Tensor]] = []

    def validate(model: nn.Module) -> dict[str, float | None]:
        assert not model.training
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"score": next(scores)}

    fit = make_fit(config, store, tmp_path, Hooks(validate=validate))
    state = fit.run()
    assert (state.epoch, state.best_epoch) == (4, 2)
    assert_equal_bits(weights(fit), seen[1])
    assert state.history[1]["val_score"] == 0.9


def test_an_undefined_score_counts_as_no_improvement(store: TinyStore, tmp_path: Path) -> None:
    config = load_config("paper", [*SMALL, "train.epochs=9", "train.early_stop=3"])
    state = make_fit(config, store, tmp_path, Hooks(validate=lambda model: {"score": None})).run()
    assert (state.epoch, state.best_epoch) == (3, None)


def test_refreshed_statistics_are_the_average_over_training_bags(store: TinyStore, tmp_path: Path) -> None:
    config = load_config("paper", [*SMALL, "train.epochs=1"])
    fit = make_fit(config, store, tmp_path)
    fit.run()
    first = next(m for m in fit.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    conv = next(m for m in fit.model.modules() if isinstance(m, nn.Conv2d))
    means = []
    from m2unet.training.fit import BatchMaker
    from m2unet.training.schedule import epoch_steps

    for step in epoch_steps(10, 4, seed=0, epoch=0):
        batch = BatchMaker(config)([fit.bags(0)[i] for i in step])  # type: ignore[index]
        means.append(conv(batch.inputs(position=False)).mean(dim=(0, 2, 3)))
    assert first.running_mean is not None
    torch.testing.assert_close(first.running_mean, torch.stack(means).mean(0), atol=1e-5, rtol=1e-4)
    assert first.momentum == 0.1


def test_a_damaged_state_is_a_clear_error(store: TinyStore, config: Config, tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes(b"not a state")
    with pytest.raises(RunError, match="cannot be read"):
        make_fit(config, store, tmp_path).run(resume=True)
    torch.save({"schema": "other/9"}, tmp_path / STATE_FILE)
    with pytest.raises(RunError, match="another format"):
        load_state(tmp_path)


def test_bags_must_divide_among_processes(store: TinyStore, config: Config, tmp_path: Path) -> None:
    model = build_model(config.model)
    with pytest.raises(ConfigError, match="multiple of the number of processes"):
        Fit(model, lambda epoch: BagDataset(store, ("s0",), config.bag, seed=0), config, tmp_path, World(size=3))


def test_a_diverging_loss_is_a_clear_error(store: TinyStore, tmp_path: Path) -> None:
    config = load_config("paper", [*SMALL, "train.lr=1e30", "train.epochs=4"])
    with pytest.raises(RunError, match="not finite"):
        make_fit(config, store, tmp_path).run()


@pytest.mark.parametrize("name", ["cls_only", "gated_mil", "resnet50_max", "m2unet"])
def test_lambda_scales_the_severity_of_a_joint_network_alone(name: str, tmp_path: Path) -> None:
    rows, found = [], []
    for weight in ("1.0", "0.01"):
        settings = [*SMALL, "bag.patch=32", "train.epochs=1", f"model.name={name}", f"train.lambda_mil={weight}"]
        fit = make_fit(load_config("paper", settings), TinyStore(scans=4, masked=2), tmp_path / weight)
        rows.append(fit.run().history[0])
        found.append(weights(fit))
    if name == "m2unet":
        assert rows[1]["loss"] == pytest.approx(0.01 * rows[1]["loss_severity"] + rows[1]["loss_lobes"], rel=1e-6)
        return
    assert_equal_bits(*found)
    assert rows[1]["loss"] == rows[1]["loss_severity"] > 0


@pytest.mark.parametrize("name", ["seg_only", "unet", "unetpp", "cls_only", "gated_mil", "resnet50_max", "m2unet"])
def test_a_step_without_a_single_label_stops_nothing(name: str, tmp_path: Path) -> None:
    store = TinyStore(scans=4, masked=2)
    for scan_id, scan in store.scans.items():
        if scan_id in ("s1", "s2"):
            store.scans[scan_id] = replace(scan, severity=-1)
    one_bag = ["bag.patch=32", "train.epochs=1", "train.bags_per_step=1", f"model.name={name}"]
    state = make_fit(load_config("paper", [*SMALL, *one_bag]), store, tmp_path).run()
    assert state.history[0]["loss"] > 0


def test_an_interrupted_run_goes_on_with_the_same_loss_or_not_at_all(store: TinyStore, tmp_path: Path) -> None:
    def interrupted(name: str) -> Fit:
        settings = [*SMALL, f"model.name={name}", "train.lambda_mil=0.01"]
        stop = Hooks(on_step=lambda done, total, loss: os.kill(os.getpid(), signal.SIGINT))
        fit = make_fit(load_config("paper", settings), store, tmp_path / name, stop)
        with pytest.raises(TrainingInterruptedError):
            fit.run()
        state = load_state(tmp_path / name)
        assert state is not None
        state.severity_weight = state.bags = None  # as earlier versions left it
        save_state(state, tmp_path / name)
        return make_fit(fit.config, store, tmp_path / name)

    assert interrupted("m2unet").run(resume=True).epoch == 2
    with pytest.raises(RunError, match=r"times 0\.01 before, times 1 now"):
        interrupted("cls_only").run(resume=True)
    fewer = make_fit(interrupted("seg_only").config, TinyStore(scans=8, masked=5), tmp_path / "seg_only")
    state = load_state(tmp_path / "seg_only")
    assert state is not None
    state.severity_weight, state.bags = 1.0, 10
    save_state(state, tmp_path / "seg_only")
    with pytest.raises(RunError, match="10 bags an epoch before, 8 now"):
        fewer.run(resume=True)


def test_bf16_trains(store: TinyStore, tmp_path: Path) -> None:
    config = load_config("paper", [*SMALL, "train.precision=bf16", "train.epochs=1"])
    state = make_fit(config, store, tmp_path).run()
    assert state.history[0]["loss"] > 0


def test_frozen_statistics_stay_as_they_were(store: TinyStore, tmp_path: Path) -> None:
    fit = make_fit(load_config("paper", [*SMALL, "train.statistics=frozen"]), store, tmp_path)
    before = weights(fit)
    fit.run()
    after = weights(fit)
    assert all(torch.equal(after[name], value) for name, value in before.items() if "running" in name)
    assert not torch.equal(after["encoder.blocks.0.first.conv.weight"], before["encoder.blocks.0.first.conv.weight"])


def test_local_statistics_are_not_shared(store: TinyStore, tmp_path: Path) -> None:
    fit = make_fit(load_config("paper", [*SMALL, "train.statistics=local", "train.epochs=1"]), store, tmp_path)
    fit.run()
    assert not any(module.synchronise for module in fit.model.modules() if isinstance(module, BatchNorm))


def test_compiling_is_asked_of_the_convolutional_parts(
    store: TinyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: asked.append(type(self).__name__))
    make_fit(load_config("paper", [*SMALL, "train.compile=true"]), store, tmp_path)
    assert asked == ["Encoder", "Decoder"]
