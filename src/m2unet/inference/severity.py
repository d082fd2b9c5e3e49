"""Severity of one scan: several seeded random bags, averaged, with their spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from m2unet.bags.batch import make_batch
from m2unet.bags.sampling import BagSource, draw_bag
from m2unet.config import Config
from m2unet.inference.network import Network


@dataclass(frozen=True)
class SeverityEstimate:
    """The severe class's probability for one scan.

    Attributes:
        probability: mean over the bags, 0 to 1.
        spread: standard deviation over the bags (0 for a single bag).
        bags: each bag's probability.
        seed: seed the bags were drawn with.
    """

    probability: float
    spread: float
    bags: tuple[float, ...]
    seed: int


@torch.inference_mode()
def estimate_severity(
    model: Network, scan: BagSource, config: Config, *, seed: int, device: torch.device, bags: int | None = None
) -> SeverityEstimate:
    """Draw seeded bags from a scan, classify each, and average.

    Args:
        model: in evaluation mode, with the ``severity`` task.
        scan: a prepared scan (``array`` [z, y, x] int16 HU and reference boxes).
        config: the model's run configuration.
        seed: bag k is drawn from the stream named by (seed, k), so the same seed gives the same answer.
        device: where the model is.
        bags: how many; ``config.bag.test_bags`` if None.
    """
    probabilities: list[float] = []
    for index in range(bags or config.bag.test_bags):
        bag = draw_bag(scan, config.bag, np.random.default_rng([seed, index, 0x7E57]))
        batch = make_batch([bag], config.window, position=config.model.position, classes=config.model.classes)
        output = model(batch.to(device), lobes_for=None)
        probabilities.append(float(torch.softmax(output.severity.float(), dim=1)[0, 1]))
    return SeverityEstimate(
        probability=float(np.mean(probabilities)),
        spread=float(np.std(probabilities)),
        bags=tuple(probabilities),
        seed=seed,
    )
