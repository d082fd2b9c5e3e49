"""The joint loss: lambda * severity cross-entropy + lobe cross-entropy and soft Dice (Eqs. 3-5 of the paper).

Every term is a sum over this process's bags divided by the number of such bags on *all* processes, so that summing the
gradients of all processes gives exactly the gradient of the whole batch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from m2unet.anatomy import UNDECIDED
from m2unet.models.base import LOBES, SEVERITY
from m2unet.models.batch import Batch, ModelOutput
from m2unet.training.distributed import World


@dataclass(frozen=True)
class Losses:
    """The parts of one step's loss, scalars; their sums over processes are the batch's values.

    Attributes:
        total: ``lambda_mil * severity + lobes``, what is differentiated.
        severity: mean cross-entropy of the severity logits, zero if no bag has a label.
        lobes: mean over masked bags of pixel cross-entropy + (1 - soft Dice), zero if no bag has a mask. Dice is
            averaged over all classes, also those absent from the bag: there any score for the class costs. Pixels
            marked :data:`m2unet.anatomy.UNDECIDED` count in neither; a bag of nothing else adds zero.
    """

    total: Tensor
    severity: Tensor
    lobes: Tensor


def severity_weight(tasks: Collection[str], lambda_mil: float) -> float:
    """What the severity loss is multiplied by: lambda where a network has both tasks, else 1.

    Lambda weighs the two losses of Eq. 3 against each other. With one loss there is nothing to weigh, and the factor
    would do no more than scale the learning rate.

    Args:
        tasks: of the network, see :attr:`m2unet.models.base.SeverityModel.tasks`.
        lambda_mil: the configured lambda.
    """
    return lambda_mil if {SEVERITY, LOBES} <= set(tasks) else 1.0


def joint_loss(output: ModelOutput, batch: Batch, *, lambda_mil: float, world: World) -> Losses:
    """The loss of one batch, Eq. 3: ``L = lambda * L_MIL + L_seg``.

    A part for which the model has no output is zero; so is L_seg for bags without a mask.

    Args:
        output: what the model said of ``batch``.
        batch: bags with labels; ``severity`` -1 is left out.
        lambda_mil: weight of the severity loss, see :func:`severity_weight` (0.01 in the paper; 1 for a network that
            gives severity alone). It counts in a step without a single mask, too: the next step has one.
        world: the processes that share the batch.
    """
    zero = batch.patches.new_zeros(())
    severity = _severity_loss(output, batch, world)
    lobes = _lobe_loss(output, batch, world)
    severity = zero if severity is None else severity
    lobes = zero if lobes is None else lobes
    return Losses(total=lambda_mil * severity + lobes, severity=severity.detach(), lobes=lobes.detach())


def _severity_loss(output: ModelOutput, batch: Batch, world: World) -> Tensor | None:
    known = batch.severity >= 0
    count = max(world.sum_int(int(known.sum()), batch.patches.device), 1)
    if output.instance_severity is not None:
        return _instance_loss(output.instance_severity, batch, known) / count
    if output.severity is None:
        return None
    logits = output.severity.float()
    return functional.cross_entropy(logits[known], batch.severity[known], reduction="sum") / count


def _instance_loss(logits: Tensor, batch: Batch, known: Tensor) -> Tensor:
    """Each patch carries its scan's label (ResNet50 + Max is not trained as a multi-instance method)."""
    total = logits.float().sum() * 0.0  # keeps the graph where no bag has a label
    for bag in torch.nonzero(known).flatten().tolist():
        patches = logits[bag][batch.mask[bag]].float()
        total = total + functional.cross_entropy(patches, batch.severity[bag].expand(len(patches)))
    return total


def _lobe_loss(output: ModelOutput, batch: Batch, world: World) -> Tensor | None:
    count = max(world.sum_int(int(batch.has_lobes.sum()), batch.patches.device), 1)
    if output.lobes is None:
        return None
    total = output.lobes.float().sum() * 0.0  # keeps the graph, and so the order of collectives, alike on all processes
    if batch.lobes is None or output.lobe_bags is None:
        return total
    criterion = _dice_and_cross_entropy()
    start = 0
    for bag in torch.nonzero(output.lobe_bags).flatten().tolist():
        real = batch.mask[bag]
        logits = output.lobes[start : start + int(real.sum())]
        start += len(logits)
        scores, truth = _decided(_stack(logits.float()), _stack(batch.lobes[bag][real].unsqueeze(1)))
        if truth.numel():
            total = total + criterion(scores, truth)
    return total / count


def _stack(patches: Tensor) -> Tensor:
    """``[n, c, H, W]`` -> ``[1, c, n * H, W]``: Dice is taken over all pixels of a bag, not patch by patch."""
    channels, width = patches.shape[1], patches.shape[3]
    return patches.transpose(0, 1).reshape(1, channels, -1, width)


def _decided(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Without the pixels nobody decided: ``[1, c, H, W]`` and ``[1, 1, H, W]``, or ``[1, c, P, 1]`` of those left."""
    known = truth[0, 0] != UNDECIDED
    if bool(known.all()):
        return scores, truth
    return scores[:, :, known].unsqueeze(-1), truth[:, :, known].unsqueeze(-1)


@lru_cache(maxsize=1)
def _dice_and_cross_entropy() -> Any:
    from monai.losses import DiceCELoss

    return DiceCELoss(include_background=True, to_onehot_y=True, softmax=True)
