"""The training loop: several bags a step, one set of batch statistics, resumable to the bit on a CPU."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from m2unet.bags.bag import Bag
from m2unet.bags.batch import make_batch
from m2unet.config import Config
from m2unet.errors import ConfigError, RunError
from m2unet.models.base import SeverityModel
from m2unet.models.batch import Batch
from m2unet.models.norm import BatchNorm
from m2unet.models.precision import native_bf16
from m2unet.training.average import WeightAverage
from m2unet.training.distributed import World
from m2unet.training.interrupt import StopRequest, TrainingInterruptedError
from m2unet.training.losses import joint_loss, severity_weight
from m2unet.training.record import EpochRecord, RunLog
from m2unet.training.schedule import epoch_steps, make_optimiser, poly_lr, set_lr
from m2unet.training.state import TrainingState, load_state, save_state
from m2unet.training.statistics import refresh_statistics

logger = logging.getLogger(__name__)

Validator = Callable[[nn.Module], Mapping[str, float | None]]
"""Scores a model on validation scans. The entry ``score`` (larger is better) decides early stopping."""


@dataclass(frozen=True)
class Hooks:
    """What the caller wants to hear of.

    Attributes:
        validate: scores the model every ``train.validate_every`` epochs.
        on_step: called after each step with (steps done, steps in all, loss of the step).
        on_epoch: called with the record of each finished epoch.
    """

    validate: Validator | None = None
    on_step: Callable[[int, int, float], None] = field(default=lambda done, total, loss: None)
    on_epoch: Callable[[EpochRecord], None] = field(default=lambda record: None)


class Fit:
    """Trains one model in one run folder.

    Args:
        model: the network, freshly built from the run's seed.
        bags: dataset of one epoch's bags, as a function of the epoch (0, 1, ...); the same length each epoch.
        config: the run's configuration.
        folder: existing run folder; gets ``state.pt``, ``metrics.csv`` and ``tensorboard/``.
        world: the processes that train together.
        hooks: validation and progress.

    Raises:
        ConfigError: if the bags of a step cannot be shared equally among the processes.
    """

    def __init__(
        self,
        model: SeverityModel,
        bags: Callable[[int], Dataset[Bag]],
        config: Config,
        folder: Path,
        world: World | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.world = world or World()
        self.hooks = hooks or Hooks()
        self.config = config
        self.folder = folder
        self.bags = bags
        train = config.train
        if train.bags_per_step % self.world.size:
            raise ConfigError(
                "train.bags_per_step must be a multiple of the number of processes",
                found=f"{train.bags_per_step} bags, {self.world.size} processes",
            )
        model.to(self.world.device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.checkpointing = train.checkpointing
        self.model = model
        if train.compile:
            compile_parts(model)
        self.optimiser = make_optimiser(self.model, train)
        self.average = None if train.average is None else WeightAverage(model, train.average)
        self.weight = severity_weight(model.tasks, train.lambda_mil)
        count = len(bags(0))  # type: ignore[arg-type]
        self.state = TrainingState(severity_weight=self.weight, bags=count)
        self.log = RunLog(folder, active=self.world.main)
        self._count = count
        self._updates_per_epoch = len(self._updates(0))
        self._stop = StopRequest()

    def run(self, *, resume: bool = False) -> TrainingState:
        """Train to the last epoch, or until early stopping; with ``resume``, from where the folder's state stands.

        The model ends with the weights to keep: the best validated ones under early stopping, else the last, or their
        average over steps; and with running batch statistics recomputed over training bags if so configured.

        Raises:
            TrainingInterruptedError: on SIGINT or SIGTERM, after the state was saved.
            RunError: if the loss is not finite, or the interrupted run had another loss or other bags.
        """
        if resume:
            self._restore()
        with self._stop.listening(), self.log:
            while self.state.epoch < self.config.train.epochs and not self._stopped_early():
                self._epoch()
        if self.state.best_model is not None:
            self.model.load_state_dict(self.state.best_model)
        elif self.average is not None:
            self.average.adopt()
        self._refresh()
        return self.state

    def _restore(self) -> None:
        state = load_state(self.folder)
        if state is None:
            return
        self._check_same(state)
        self.state = state
        self.model.load_state_dict(state.model)
        self.optimiser.load_state_dict(state.optimiser)
        if self.average is not None and state.average is not None:
            self.average.load_state_dict(state.average)
        logger.info("resuming at epoch %d, step %d", state.epoch + 1, state.step)

    def _check_same(self, state: TrainingState) -> None:
        """Refuse to go on with another loss or other bags; earlier versions kept neither, and always used lambda."""
        weight = self.config.train.lambda_mil if state.severity_weight is None else state.severity_weight
        found = [f"severity loss times {weight:g} before, times {self.weight:g} now"] if weight != self.weight else []
        if state.bags not in (None, self._count):
            found.append(f"{state.bags} bags an epoch before, {self._count} now")
        if found:
            raise RunError(
                "The interrupted training cannot go on as it began",
                found="; ".join(found),
                mend="train again in another folder",
            )
        state.severity_weight, state.bags = self.weight, self._count

    def _stopped_early(self) -> bool:
        patience = self.config.train.early_stop
        return patience is not None and self.state.stale >= patience

    def _updates(self, epoch: int) -> list[list[list[int]]]:
        """The epoch's optimiser updates, each a list of steps, each a list of bag indices."""
        train = self.config.train
        steps = epoch_steps(self._count, train.bags_per_step, seed=self.config.seed, epoch=epoch)
        return [steps[i : i + train.accumulate] for i in range(0, len(steps), train.accumulate)]

    def _epoch(self) -> None:
        epoch, started = self.state.epoch, time.monotonic()
        updates = self._updates(epoch)[self.state.step :]
        loader = iter(self._loader(epoch, updates))
        set_training(self.model, self.config.train.statistics)
        for update in updates:
            self._update([next(loader) for _ in update])
            self.state.step += 1
            if self.world.sum_int(int(self._stop.requested), self.world.device):
                self._save()
                raise TrainingInterruptedError(self.folder)
        self._close_epoch(time.monotonic() - started)

    def _loader(self, epoch: int, updates: list[list[list[int]]]) -> DataLoader[Any]:
        share = self.config.train.bags_per_step // self.world.size
        first = self.world.rank * share
        steps = [step[first : first + share] for update in updates for step in update]
        workers = self.config.train.workers
        return DataLoader(
            self.bags(epoch),
            batch_sampler=steps,
            collate_fn=BatchMaker(self.config),
            num_workers=workers,
            pin_memory=self.world.device.type == "cuda",
            prefetch_factor=2 if workers else None,
        )

    def _update(self, batches: list[Batch]) -> None:
        """One optimiser update over one or more steps; gradients of the steps are averaged."""
        train = self.config.train
        done = self.state.epoch * self._updates_per_epoch + self.state.step
        total = train.epochs * self._updates_per_epoch
        set_lr(self.optimiser, poly_lr(train.lr, done, total, train.poly_power))
        self.optimiser.zero_grad(set_to_none=True)
        sums = torch.zeros(3, dtype=torch.float64, device=self.world.device)
        for batch in batches:
            sums += self._backward(batch.to(self.world.device, non_blocking=True), len(batches))
        self.world.sum_gradients(self.model)
        self.optimiser.step()
        if self.average is not None:
            self.average.update()
        values = (self.world.sum_(sums) / len(batches)).tolist()
        if not all(map(math.isfinite, values)):
            raise RunError(
                "The training loss is not finite any more",
                found=f"epoch {self.state.epoch + 1}, step {self.state.step + 1}",
                mend="lower train.lr, or use --set train.precision=float32",
            )
        for name, value in zip(("loss", "loss_severity", "loss_lobes"), values, strict=True):
            self.state.sums[name] = self.state.sums.get(name, 0.0) + value
        self.hooks.on_step(done + 1, total, values[0])

    def _backward(self, batch: Batch, parts: int) -> torch.Tensor:
        masked_anywhere = self.world.sum_int(int(batch.has_lobes.sum()), self.world.device) > 0
        precision = self.config.train.precision
        bf16 = precision == "bf16" or (precision == "auto" and native_bf16(self.world.device))
        with torch.autocast(self.world.device.type, dtype=torch.bfloat16, enabled=bf16):
            output = self.model(batch, lobes_for=batch.has_lobes if masked_anywhere else None)
        losses = joint_loss(output, batch, lambda_mil=self.weight, world=self.world)
        total = losses.total
        if not total.requires_grad:  # lobes alone, and no bag of the step has a mask: nothing to learn from
            total = total + self.model.anchor()
        (total / parts).backward()
        return torch.stack([losses.total.detach(), losses.severity, losses.lobes]).double()

    def _close_epoch(self, seconds: float) -> None:
        state, train = self.state, self.config.train
        means = {name: value / self._updates_per_epoch for name, value in state.sums.items()}
        last = state.epoch + 1 == train.epochs
        scores: dict[str, float | None] = {}
        if self.hooks.validate is not None and (last or (state.epoch + 1) % train.validate_every == 0):
            scores = self._validate(self.hooks.validate)
        record = EpochRecord(
            epoch=state.epoch + 1,
            lr=float(self.optimiser.param_groups[0]["lr"]),
            seconds=seconds,
            validation=scores,
            **means,
        )
        state.history.append(record.to_dict())
        state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
        self._save()
        self.log.write(state.history)
        self.hooks.on_epoch(record)

    def _validate(self, validate: Validator) -> dict[str, float | None]:
        """Scores of the weights that would be kept now: their average, if there is one."""
        kept: AbstractContextManager[None] = nullcontext() if self.average is None else self.average.applied()
        with kept:
            self._refresh()
            self.model.eval()
            scores = dict(validate(self.model))
            self._judge(scores.get("score"))
        return scores

    def _judge(self, score: float | None) -> None:
        if self.config.train.early_stop is None:
            return
        best = self.state.best_score
        if score is not None and (best is None or score > best):
            self.state.best_score, self.state.best_epoch, self.state.stale = score, self.state.epoch + 1, 0
            self.state.best_model = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
        else:
            self.state.stale += 1

    def _refresh(self) -> None:
        """Recompute running statistics over a fixed set of training bags, the same on every process."""
        if self.config.train.refresh_statistics and self.config.train.statistics != "frozen":
            steps = epoch_steps(self._count, self.config.train.bags_per_step, seed=self.config.seed, epoch=0)
            loader = DataLoader(self.bags(0), batch_sampler=steps[:REFRESH_STEPS], collate_fn=BatchMaker(self.config))
            refresh_statistics(self.model, loader, self.world.device)

    def _save(self) -> None:
        if self.world.main:
            self.state.model = self.model.state_dict()
            self.state.optimiser = self.optimiser.state_dict()
            self.state.average = None if self.average is None else self.average.state_dict()
            save_state(self.state, self.folder)


def set_training(model: nn.Module, statistics: str) -> None:
    """Training mode, with batch normalisation as ``train.statistics`` says: see :class:`m2unet.config.TrainConfig`."""
    model.train()
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.synchronise = statistics == "synchronised"
            module.train(statistics != "frozen")


def compile_parts(model: nn.Module) -> None:
    """Compile the convolutional parts in place; parameters keep their names."""
    for name in ("encoder", "decoder"):
        part = getattr(model, name, None)
        if part is not None:
            part.compile()


REFRESH_STEPS = 16
"""Steps of bags over which running statistics are recomputed."""


@dataclass(frozen=True)
class BatchMaker:
    """Picklable collate function of the loaders."""

    config: Config

    def __call__(self, bags: list[Bag]) -> Batch:
        """Pad and mask the bags of one step."""
        model = self.config.model
        return make_batch(bags, self.config.window, position=model.position, classes=model.classes)
