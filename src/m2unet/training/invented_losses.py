"""Losses of the whole-chest network: lobes, heights, visible fissures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from m2unet.anatomy import AIRWAY, LEFT_CODES, RIGHT_CODES

BORDER_PIXELS = 3
"""6 mm on the working grid."""
FISSURE_GAIN = 5.0
"""Some 4 % of the lungs' pixels are fissures."""


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
    gain = logits.new_tensor(FISSURE_GAIN)
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
