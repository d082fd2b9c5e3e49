"""Training the whole-chest network on slabs of chests: one process, resumable.

The only input is a pool of chests, phantoms or, to fine-tune, annotated scans; step *i* sees the same images whatever
came before, so a resumed run goes on as if it had not stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from m2unet.anatomy import AIRWAY, LEFT_CODES, RIGHT_CODES
from m2unet.config import Config
from m2unet.files import atomic_path
from m2unet.models.chest_unet import ChestAnswer, ChestUNet, height_channel
from m2unet.models.precision import native_bf16
from m2unet.phantom.randomised.pool import ChestPool
from m2unet.phantom.randomised.samples import Knobs, Samples, draw_samples

VALIDATION_SEED = 1_000_003
BORDER_PIXELS = 3
"""6 mm on the working grid."""
FISSURE_GAIN = 5.0
"""Some 4 % of the lungs' pixels are fissures."""


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
    fissures: float
    rate: float
    seconds: float
    val_lung_dice: float | None = None
    val_lobe_dice: float | None = None
    val_lobe_dice_given_height: float | None = None
    val_height_error: float | None = None
    val_fissure_auc: float | None = None


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
    start: Mapping[str, Tensor] | None = None,
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
        start: weights that a fresh run begins with, see :meth:`ChestUNet.begin_with`; None draws them from the seed.

    Returns:
        The network with averaged weights, in evaluation mode.
    """
    torch.manual_seed(settings.seed)
    model = ChestUNet(config.model)
    if start is not None:
        model.begin_with(start)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    state = _State(model, {k: v.clone() for k, v in model.state_dict().items()}, optimiser)
    if state_file.is_file():
        state.load(state_file)

    def drawn(step: int) -> _Batch:
        numbers = range(step * settings.slabs, (step + 1) * settings.slabs)
        return _batch(draw_samples(pool, settings.seed, number, config.window, knobs) for number in numbers)

    while state.step < settings.steps:
        started = time.perf_counter()
        figures = _step(state, drawn(state.step), settings)
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


def _step(state: _State, batch: _Batch, settings: InventedTraining) -> dict[str, float]:
    heights = batch.heights
    rng = np.random.default_rng([settings.seed, 11, state.step])
    hidden = torch.from_numpy(rng.random(len(heights)) < settings.unknown_height)
    jitter = torch.from_numpy(rng.standard_normal(len(heights)).astype(np.float32)) * settings.height_jitter
    given = torch.where(hidden, torch.full_like(heights, torch.nan), heights + jitter)
    state.model.train()
    for group in state.optimiser.param_groups:
        group["lr"] = settings.rate(state.step)
    answer = _read(state.model, batch.images, given)
    segmentation = segmentation_loss(answer.lobes.float(), batch.labels, settings.border_weight)
    height = height_loss(answer.place.float(), heights, hidden)
    fissures = fissure_loss(answer.fissures[:, 0].float(), batch.fissures, batch.labels)
    loss = segmentation + settings.height_weight * height + settings.fissure_weight * fissures
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
    return {
        "loss": loss.item(),
        "segmentation": segmentation.item(),
        "height": height.item(),
        "fissures": fissures.item(),
    }


def _read(model: ChestUNet, images: Tensor, heights: Tensor) -> ChestAnswer:
    with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16(images.device)):
        return model.read(height_channel(images, heights))


@dataclass(frozen=True)
class _Batch:
    images: Tensor
    labels: Tensor
    heights: Tensor
    fissures: Tensor | None


def _batch(samples: Iterator[Samples]) -> _Batch:
    drawn = list(samples)
    images = torch.from_numpy(np.concatenate([s.images for s in drawn])).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(np.concatenate([s.labels for s in drawn])).long()
    known = [s.fissures for s in drawn if s.fissures is not None]
    fissures = torch.from_numpy(np.concatenate(known)) if len(known) == len(drawn) else None
    return _Batch(images, labels, torch.from_numpy(np.concatenate([s.heights for s in drawn])), fissures)


def segmentation_loss(logits: Tensor, labels: Tensor, border_weight: float = 0.0) -> Tensor:
    """Cross-entropy plus one minus soft Dice, over the classes that the batch holds (Eq. 4 of the paper, whole batch).

    Args:
        logits: ``[N, c, H, W]``.
        labels: ``[N, H, W]`` int64.
        border_weight: what pixels near the border of two lobes weigh more in the mean of the cross-entropy.
    """
    truth = F.one_hot(labels, logits.shape[1]).permute(0, 3, 1, 2).to(logits.dtype)
    entropy = F.cross_entropy(logits, labels, reduction="none")
    entropy = (entropy * (1 + border_weight * near_borders(truth))).mean()
    scores = logits.softmax(1)
    common = (scores * truth).sum((0, 2, 3))
    total = scores.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    dice = (2 * common + 1) / (total + 1)
    return entropy + 1 - dice[present].mean()


def near_borders(truth: Tensor) -> Tensor:
    """``[N, H, W]`` 1 where two lobes of one lung lie within :data:`BORDER_PIXELS`, else 0.

    Args:
        truth: ``[N, c, H, W]`` one-hot lobe codes.
    """
    reach = F.max_pool2d(truth[:, 1:AIRWAY], 2 * BORDER_PIXELS + 1, stride=1, padding=BORDER_PIXELS)
    sides = [reach[:, [code - 1 for code in codes]].sum(1) > 1 for codes in (RIGHT_CODES, LEFT_CODES)]
    return torch.stack(sides).any(0).to(truth.dtype)


def fissure_loss(logits: Tensor, fissures: Tensor | None, labels: Tensor) -> Tensor:
    """Cross-entropy of visible fissures over the pixels of lobes, fissures weighing :data:`FISSURE_GAIN` times more.

    Args:
        logits: ``[N, H, W]``.
        fissures: ``[N, H, W]`` bool; None where nobody knows: no loss.
        labels: ``[N, H, W]`` lobe codes.
    """
    inside = (labels > 0) & (labels < AIRWAY)
    if fissures is None or not bool(inside.any()):
        return logits.sum() * 0
    gain = torch.tensor(FISSURE_GAIN)
    return F.binary_cross_entropy_with_logits(logits[inside], fissures[inside].float(), pos_weight=gain)


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
) -> dict[str, float | None]:
    """Figures on held-out chests, over all voxels of the validation slabs, heights hidden and given."""
    counts = np.zeros((2, 8, 2))
    errors, lines = [], []
    for number in range(settings.validation_slabs):
        batch = _batch(iter([draw_samples(held_out, VALIDATION_SEED, number, config.window, knobs)]))
        heights = batch.heights
        for k, given in enumerate((torch.full_like(heights, torch.nan), heights)):
            answer = _read(model, batch.images, given)
            counts[k] += _overlaps(_codes(answer.lobes.float().softmax(1)), batch.labels.numpy())
            if k == 0:  # where the height is given, telling it is no feat
                errors.append((answer.place[:, 0].float() - heights).abs().numpy())
        if batch.fissures is not None:
            inside = (batch.labels > 0) & (batch.labels < AIRWAY)
            lines.append((answer.fissures[:, 0].float()[inside].numpy(), batch.fissures[inside].numpy()))
    dice = 2 * counts[..., 0] / np.maximum(counts[..., 1], 1)
    return {
        "val_lung_dice": float(dice[0, 7]),
        "val_lobe_dice": float(dice[0, 1:6].mean()),
        "val_lobe_dice_given_height": float(dice[1, 1:6].mean()),
        "val_height_error": float(np.concatenate(errors).mean()),
        "val_fissure_auc": _auc(lines),
    }


def _auc(lines: list[tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> float | None:
    if not lines:
        return None
    scores, truth = (np.concatenate(part) for part in zip(*lines, strict=True))
    return float(roc_auc_score(truth, scores)) if 0 < truth.mean() < 1 else None


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
