"""The optimiser, the poly learning rate, and which bags make each step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from m2unet.config import TrainConfig


def make_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum (the paper's) or AdamW over all parameters of ``model``."""
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


def poly_lr(base: float, iteration: int, total: int, power: float) -> float:
    """``base * (1 - iteration / total) ** power``: the "poly" decay, per iteration, power 0.75 in the paper."""
    return base * (1.0 - iteration / max(total, 1)) ** power


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def epoch_steps(count: int, bags_per_step: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Indices of the bags of each step of one epoch, a pure function of its arguments.

    The order is shuffled; the last step is filled up from the beginning of that order, since a step with fewer bags
    would have other batch statistics.

    Args:
        count: number of bags in an epoch.
        bags_per_step: bags that share one step, over all processes.
        seed: the run's seed.
        epoch: which epoch, from 0.
    """
    order: Sequence[int] = np.random.default_rng([seed, epoch, 0x5EED]).permutation(count).tolist()
    steps = -(-count // bags_per_step)
    filled = [order[i % count] for i in range(steps * bags_per_step)]
    return [filled[i * bags_per_step : (i + 1) * bags_per_step] for i in range(steps)]
