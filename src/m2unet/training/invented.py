"""Training the whole-chest network on slabs of chests: one process and one device, resumable.

The only input is a pool of chests, phantoms or, to fine-tune, annotated scans; step *i* sees the same images whatever
came before, so a resumed run goes on as if it had not stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m2unet.config import Config
from m2unet.files import atomic_path
from m2unet.models.chest_unet import ChestUNet
from m2unet.phantom.randomised.pool import ChestPool
from m2unet.phantom.randomised.samples import Knobs
from m2unet.training.invented_losses import fissure_loss, height_loss, segmentation_loss
from m2unet.training.invented_validation import VALIDATION_SEED, read_batch, validate
from m2unet.training.slabs import SlabBatch, SlabSource

CPU = torch.device("cpu")


@dataclass(frozen=True)
class InventedTraining:
    """How the network is trained.

    Attributes:
        steps: optimiser steps in all; the learning rate's course depends on it.
        slabs: slabs a step, each of up to four slices.
        lr, weight_decay: of AdamW.
        warmup: steps of rising learning rate.
        decay_from: share of the steps after which the learning rate falls to 0 along a cosine.
        unknown_height: share of slices whose height is hidden from the network, which then has to tell it.
        height_jitter: standard deviation of the error of heights that are given.
        height_weight: weight of the height's loss.
        fissure_weight: weight of the loss of visible fissures.
        border_weight: what a pixel near the border of two lobes of one lung weighs more in the cross-entropy.
        average: decay of the running average of the weights, which is what is kept.
        save_every, validate_every: steps between.
        validation_slabs: held-out slabs looked at.
        seed: all chance.
    """

    steps: int = 6000
    slabs: int = 3
    lr: float = 2e-3
    weight_decay: float = 1e-3
    warmup: int = 150
    decay_from: float = 0.65
    unknown_height: float = 0.5
    height_jitter: float = 0.07
    height_weight: float = 0.05
    fissure_weight: float = 0.5
    border_weight: float = 3.0
    average: float = 0.995
    save_every: int = 100
    validate_every: int = 500
    validation_slabs: int = 24
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        start = self.decay_from * self.steps
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if step < start:
            return self.lr
        return self.lr * 0.5 * (1 + float(np.cos(np.pi * (step - start) / max(self.steps - start, 1))))


@dataclass(frozen=True)
class Drawing:
    """Where the images come from, and on what the network is trained.

    Attributes:
        pool: chests to train on.
        held_out: chests for the validation figures; None takes none.
        knobs: of the invented images; the defaults if None.
        workers: processes that draw images beside the training; with 0 the training does it itself.
        device: where the network is trained.
    """

    pool: ChestPool
    held_out: ChestPool | None = None
    knobs: Knobs | None = None
    workers: int = 0
    device: torch.device = CPU


@dataclass(frozen=True)
class StepRecord:
    """Figures of a step: losses, learning rate, seconds; with validation, Dice of the lungs' union and of the lobes."""

    step: int
    loss: float
    segmentation: float
    height: float
    fissures: float
    rate: float
    seconds: float
    val_lung_dice: float | None = None
    val_lobe_dice: float | None = None
    val_lobe_dice_given_height: float | None = None
    val_height_error: float | None = None
    val_fissure_auc: float | None = None


class InventedTrainer:
    """A network in training: its weights, their running average, the optimiser.

    Args:
        model: the network; is moved to the device.
        settings: see there.
        device: where it is trained.
    """

    def __init__(self, model: ChestUNet, settings: InventedTraining, device: torch.device) -> None:
        self.model = _placed(model, device)
        self.settings, self.device, self.step_number = settings, device, 0
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        self.average = {name: value.clone() for name, value in model.state_dict().items()}

    def save(self, path: Path) -> None:
        """Write all that :meth:`load` needs to go on."""
        content = {
            "step": self.step_number,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
        }
        with atomic_path(path) as temporary:
            torch.save(content, temporary)

    def load(self, path: Path) -> None:
        """Go on where :meth:`save` was called."""
        content = torch.load(path, weights_only=True, map_location=self.device)
        self.model.load_state_dict(content["model"])
        self.average = content["average"]
        self.optimiser.load_state_dict(content["optimiser"])
        self.step_number = content["step"]

    def step(self, batch: SlabBatch) -> dict[str, float]:
        """One optimiser step; returns its losses.

        Args:
            batch: on the trainer's device.
        """
        settings = self.settings
        hidden, given = self._heights(batch.heights)
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = settings.rate(self.step_number)
        answer = read_batch(self.model, batch.images, given)
        segmentation = segmentation_loss(answer.lobes.float(), batch.labels, settings.border_weight)
        height = height_loss(answer.place.float(), batch.heights, hidden)
        fissures = fissure_loss(answer.fissures[:, 0].float(), batch.fissures, batch.labels)
        loss = segmentation + settings.height_weight * height + settings.fissure_weight * fissures
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self._update_average()
        self.step_number += 1
        figures = torch.stack([loss, segmentation, height, fissures]).detach().tolist()
        return dict(zip(("loss", "segmentation", "height", "fissures"), figures, strict=True))

    def _heights(self, heights: Tensor) -> tuple[Tensor, Tensor]:
        """Whose height is hidden, and the heights given: with an error, or NaN."""
        rng = np.random.default_rng([self.settings.seed, 11, self.step_number])
        hidden = torch.from_numpy(rng.random(len(heights)) < self.settings.unknown_height).to(self.device)
        error = torch.from_numpy(rng.standard_normal(len(heights)).astype(np.float32)).to(self.device)
        given = heights + error * self.settings.height_jitter
        return hidden, torch.where(hidden, torch.nan, given)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.settings.average, (1 + self.step_number) / (10 + self.step_number))
        now = self.model.state_dict()
        real = [name for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in real], [now[name] for name in real], 1 - decay)
        for name in now.keys() - set(real):
            self.average[name].copy_(now[name])

    def averaged(self) -> ChestUNet:
        """A copy of the network with the averaged weights, in evaluation mode."""
        copy = deepcopy(self.model)
        copy.load_state_dict(self.average)
        return copy.eval()


def _placed(model: ChestUNet, device: torch.device) -> ChestUNet:
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def train_invented(
    drawing: Drawing,
    config: Config,
    settings: InventedTraining,
    state_file: Path,
    *,
    record: Callable[[StepRecord], None] = lambda _: None,
    start: Mapping[str, Tensor] | None = None,
) -> ChestUNet:
    """Train, or go on training.

    Args:
        drawing: where the images come from.
        config: ``config.model`` must be a ``chest_unet``.
        settings: see there.
        state_file: where the run is kept while it lasts; taken up if it is there.
        record: called after every step.
        start: weights that a fresh run begins with, see :meth:`ChestUNet.begin_with`; None draws them from the seed.

    Returns:
        The network with averaged weights, in evaluation mode, on the CPU.
    """
    torch.manual_seed(settings.seed)
    model = ChestUNet(config.model)
    if start is not None:
        model.begin_with(start)
    trainer = InventedTrainer(model, settings, drawing.device)
    if state_file.is_file():
        trainer.load(state_file)
    context = config.model.context
    source = SlabSource(drawing.pool, settings.seed, config.window, drawing.knobs, context, drawing.workers)
    steps = range(trainer.step_number, settings.steps)
    held_out = _HeldOut(drawing, config, settings)
    started = time.perf_counter()
    for batch in source.batches(steps, settings.slabs, pin=drawing.device.type == "cuda"):
        figures = trainer.step(batch.to(drawing.device))
        done, last = trainer.step_number, trainer.step_number == settings.steps
        seconds = time.perf_counter() - started
        extra = held_out.figures(trainer) if last or done % settings.validate_every == 0 else {}
        record(StepRecord(done, **figures, rate=settings.rate(done - 1), seconds=seconds, **extra))
        if last or done % settings.save_every == 0:
            trainer.save(state_file)
        started = time.perf_counter()
    return trainer.averaged().cpu()


class _HeldOut:
    """Validation figures on slabs that are drawn once, when first asked for."""

    def __init__(self, drawing: Drawing, config: Config, settings: InventedTraining) -> None:
        self.drawing, self.config, self.settings = drawing, config, settings
        self.batches: list[SlabBatch] = []

    def figures(self, trainer: InventedTrainer) -> dict[str, Any]:
        drawing, config = self.drawing, self.config
        if drawing.held_out is None:
            return {}
        if not self.batches:
            source = SlabSource(
                drawing.held_out, VALIDATION_SEED, config.window, drawing.knobs, config.model.context, drawing.workers
            )
            self.batches = list(source.batches(range(self.settings.validation_slabs), 1))
        return validate(trainer.averaged(), (batch.to(trainer.device) for batch in self.batches))
