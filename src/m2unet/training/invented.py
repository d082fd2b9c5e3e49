"""Training the whole-chest network on slabs of chests: one process, resumable.

The only input is a pool of chests, phantoms or, to fine-tune, annotated scans; step *i* sees the same images whatever
came before, so a resumed run goes on as if it had not stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from m2unet.config import Config
from m2unet.files import atomic_path
from m2unet.models.chest_unet import ChestUNet, height_channel
from m2unet.phantom.randomised.pool import ChestPool
from m2unet.phantom.randomised.samples import Knobs, Samples, draw_samples

VALIDATION_SEED = 1_000_003


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
    average: float = 0.995
    save_every: int = 100
    validate_every: int = 250
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
class StepRecord:
    """Figures of a step: losses, learning rate, seconds; with validation, Dice of the lungs' union and of the lobes."""

    step: int
    loss: float
    segmentation: float
    height: float
    rate: float
    seconds: float
    val_lung_dice: float | None = None
    val_lobe_dice: float | None = None
    val_lobe_dice_given_height: float | None = None
    val_height_error: float | None = None


@dataclass
class _State:
    model: ChestUNet
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0

    def save(self, path: Path) -> None:
        content = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
        }
        with atomic_path(path) as temporary:
            torch.save(content, temporary)

    def load(self, path: Path) -> None:
        content = torch.load(path, weights_only=True)
        self.model.load_state_dict(content["model"])
        self.average = content["average"]
        self.optimiser.load_state_dict(content["optimiser"])
        self.step = content["step"]


def train_invented(
    pool: ChestPool,
    held_out: ChestPool | None,
    config: Config,
    settings: InventedTraining,
    state_file: Path,
    *,
    record: Callable[[StepRecord], None] = lambda _: None,
    knobs: Knobs | None = None,
    start: ChestUNet | None = None,
) -> ChestUNet:
    """Train, or go on training.

    Args:
        pool: chests to train on.
        held_out: chests for the validation figures; None takes none.
        config: ``config.model`` must be a ``chest_unet``.
        settings: see there.
        state_file: where the run is kept while it lasts; taken up if it is there.
        record: called after every step.
        knobs: of the invented images.
        start: a network whose weights a fresh run begins with; None draws them from the seed.

    Returns:
        The network with averaged weights, in evaluation mode.
    """
    torch.manual_seed(settings.seed)
    model = ChestUNet(config.model)
    if start is not None:
        model.load_state_dict(start.state_dict())
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    state = _State(model, {k: v.clone() for k, v in model.state_dict().items()}, optimiser)
    if state_file.is_file():
        state.load(state_file)
    while state.step < settings.steps:
        started = time.perf_counter()
        figures = _step(state, pool, config, settings, knobs)
        state.step += 1
        seconds = time.perf_counter() - started
        extra: dict[str, Any] = {}
        if held_out is not None and (state.step % settings.validate_every == 0 or state.step == settings.steps):
            extra = validate(averaged(state.model, state.average), held_out, config, settings, knobs)
        record(StepRecord(state.step, **figures, rate=settings.rate(state.step - 1), seconds=seconds, **extra))
        if state.step % settings.save_every == 0 or state.step == settings.steps:
            state.save(state_file)
    return averaged(state.model, state.average)


def averaged(model: ChestUNet, average: dict[str, Tensor]) -> ChestUNet:
    """A copy of the network with the averaged weights, in evaluation mode."""
    copy = ChestUNet(model.config)
    copy.load_state_dict(average)
    copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copy.eval()


def _step(
    state: _State, pool: ChestPool, config: Config, settings: InventedTraining, knobs: Knobs | None
) -> dict[str, float]:
    images, labels, heights = _batch(
        draw_samples(pool, settings.seed, state.step * settings.slabs + i, config.window, knobs)
        for i in range(settings.slabs)
    )
    rng = np.random.default_rng([settings.seed, 11, state.step])
    hidden = torch.from_numpy(rng.random(len(heights)) < settings.unknown_height)
    jitter = torch.from_numpy(rng.standard_normal(len(heights)).astype(np.float32)) * settings.height_jitter
    given = torch.where(hidden, torch.full_like(heights, torch.nan), heights + jitter)
    state.model.train()
    for group in state.optimiser.param_groups:
        group["lr"] = settings.rate(state.step)
    with torch.autocast("cpu", torch.bfloat16):
        logits, place = state.model.segment_and_locate(height_channel(images, given))
    segmentation = segmentation_loss(logits.float(), labels)
    height = height_loss(place.float(), heights, hidden)
    loss = segmentation + settings.height_weight * height
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimiser.step()
    decay = min(settings.average, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for name, value in state.model.state_dict().items():
            if value.is_floating_point():
                state.average[name].lerp_(value, 1 - decay)
            else:
                state.average[name].copy_(value)
    return {"loss": loss.item(), "segmentation": segmentation.item(), "height": height.item()}


def _batch(samples: Iterator[Samples]) -> tuple[Tensor, Tensor, Tensor]:
    drawn = list(samples)
    images = torch.from_numpy(np.concatenate([s.images for s in drawn])).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(np.concatenate([s.labels for s in drawn])).long()
    return images, labels, torch.from_numpy(np.concatenate([s.heights for s in drawn]))


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus one minus soft Dice, over the classes that the batch holds (Eq. 4 of the paper, whole batch).

    Args:
        logits: ``[N, c, H, W]``.
        labels: ``[N, H, W]`` int64.
    """
    entropy = F.cross_entropy(logits, labels)
    scores = logits.softmax(1)
    truth = F.one_hot(labels, logits.shape[1]).permute(0, 3, 1, 2).to(scores.dtype)
    common = (scores * truth).sum((0, 2, 3))
    total = scores.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    dice = (2 * common + 1) / (total + 1)
    return entropy + 1 - dice[present].mean()


def height_loss(place: Tensor, heights: Tensor, hidden: Tensor) -> Tensor:
    """Negative log-likelihood of a Laplace distribution, over slices whose height was hidden.

    Args:
        place: ``[N, 2]`` height and log of its uncertainty.
        heights: ``[N]`` true ones.
        hidden: ``[N]`` bool.
    """
    if not bool(hidden.any()):
        return place.sum() * 0
    error = (place[hidden, 0] - heights[hidden]).abs()
    spread = place[hidden, 1].clamp(-5, 3)
    return (error * torch.exp(-spread) + spread).mean()


@torch.inference_mode()
def validate(
    model: ChestUNet, held_out: ChestPool, config: Config, settings: InventedTraining, knobs: Knobs | None = None
) -> dict[str, float]:
    """Figures on held-out chests, over all voxels of the validation slabs, heights hidden and given."""
    counts = np.zeros((2, 8, 2))
    errors = []
    for number in range(settings.validation_slabs):
        images, labels, heights = _batch(iter([draw_samples(held_out, VALIDATION_SEED, number, config.window, knobs)]))
        for k, given in enumerate((torch.full_like(heights, torch.nan), heights)):
            with torch.autocast("cpu", torch.bfloat16):
                logits, place = model.segment_and_locate(height_channel(images, given))
            counts[k] += _overlaps(_codes(logits.float().softmax(1)), labels.numpy())
            if k == 0:
                errors.append((place[:, 0].float() - heights).abs().numpy())
    dice = 2 * counts[..., 0] / np.maximum(counts[..., 1], 1)
    return {
        "val_lung_dice": float(dice[0, 7]),
        "val_lobe_dice": float(dice[0, 1:6].mean()),
        "val_lobe_dice_given_height": float(dice[1, 1:6].mean()),
        "val_height_error": float(np.concatenate(errors).mean()),
    }


def _codes(scores: Tensor) -> np.ndarray:
    """Lung or not first, then which lobe, as at inference."""
    lung, lobe = scores[:, 1:6].sum(1), scores[:, 1:6].argmax(1) + 1
    other = torch.where(scores[:, 6] > scores[:, 0], 6, 0)
    return torch.where(lung > torch.maximum(scores[:, 0], scores[:, 6]), lobe, other).numpy()


def _overlaps(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """``[8, 2]`` common and summed voxels of codes 0-6 and, last, of the lobes' union."""
    rows = [(found == code, truth == code) for code in range(7)]
    rows.append(((found > 0) & (found < 6), (truth > 0) & (truth < 6)))
    return np.array([[np.count_nonzero(a & b), np.count_nonzero(a) + np.count_nonzero(b)] for a, b in rows], float)


def settings_dict(settings: InventedTraining) -> dict[str, Any]:
    """The settings, JSON-ready."""
    return asdict(settings)
