"""Severity of one scan: several seeded random bags, averaged, with their spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from m2unet.bags.bag import Bag
from m2unet.bags.batch import make_batch
from m2unet.bags.sampling import BagSource, draw_bag
from m2unet.config import Config
from m2unet.inference.network import Network
from m2unet.models.batch import Batch, ModelOutput


@dataclass(frozen=True)
class SeverityEstimate:
    """The severe class's probability for one scan, as the network gives it.

    Attributes:
        probability: mean over the bags, 0 to 1.
        spread: standard deviation over the bags (0 for a single bag).
        bags: each bag's probability.
        seed: seed the bags were drawn with.
        embedding: mean over the bags of the vector before the classifier; empty for a network without one.
        signature: mean over the bags of what the encoder saw (:attr:`m2unet.models.batch.ModelOutput.signature`), by
            which unusual scans are told; empty where there is none.
    """

    probability: float
    spread: float
    bags: tuple[float, ...]
    seed: int
    embedding: tuple[float, ...] = ()
    signature: tuple[float, ...] = ()


@dataclass(frozen=True)
class BagAnswer:
    """What the network says of one bag.

    Attributes:
        probability: of severe.
        embedding: the vector before the classifier, or None.
        signature: what the encoder saw, or None.
    """

    probability: float
    embedding: tuple[float, ...] | None
    signature: tuple[float, ...] | None = None


def seeded_batches(scan: BagSource, config: Config, seed: int, bags: int | None = None) -> Iterator[tuple[Bag, Batch]]:
    """The bags that a severity estimate is made of, each also as a batch of one.

    Args:
        scan: a prepared scan (``array`` [z, y, x] int16 HU and reference boxes).
        config: the model's run configuration.
        seed: bag k is drawn from the stream named by (seed, k).
        bags: how many; ``config.bag.test_bags`` if None.
    """
    for index in range(bags or config.bag.test_bags):
        bag = draw_bag(scan, config.bag, np.random.default_rng([seed, index, 0x7E57]))
        yield bag, make_batch([bag], config.window, position=config.model.position, classes=config.model.classes)


def bag_answer(output: ModelOutput) -> BagAnswer:
    """Probability and embedding of a batch of one bag."""
    assert output.severity is not None
    probability = float(torch.softmax(output.severity.float(), dim=1)[0, 1])
    return BagAnswer(probability, _vector(output.embedding), _vector(output.signature))


def _vector(rows: Tensor | None) -> tuple[float, ...] | None:
    return None if rows is None else tuple(rows[0].float().tolist())


def gather_estimate(answers: Sequence[BagAnswer], seed: int) -> SeverityEstimate:
    """Average the answers of a scan's bags."""
    probabilities = [answer.probability for answer in answers]
    return SeverityEstimate(
        probability=float(np.mean(probabilities)),
        spread=float(np.std(probabilities)),
        bags=tuple(probabilities),
        seed=seed,
        embedding=_mean([answer.embedding for answer in answers]),
        signature=_mean([answer.signature for answer in answers]),
    )


def _mean(vectors: Sequence[tuple[float, ...] | None]) -> tuple[float, ...]:
    known = [vector for vector in vectors if vector is not None]
    return tuple(np.mean(known, axis=0).tolist()) if known else ()


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
    batches = seeded_batches(scan, config, seed, bags)
    return gather_estimate([bag_answer(model(batch.to(device), lobes_for=None)) for _, batch in batches], seed)
