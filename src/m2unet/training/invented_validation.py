"""Figures of the whole-chest network on held-out slabs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from m2unet.anatomy import AIRWAY
from m2unet.models.chest_unet import ChestAnswer, ChestUNet, height_channel
from m2unet.models.precision import native_bf16
from m2unet.training.slabs import SlabBatch

VALIDATION_SEED = 1_000_003


def read_batch(model: ChestUNet, images: Tensor, heights: Tensor) -> ChestAnswer:
    """What the network says of slices ``[N, slices, H, W]`` at heights ``[N]``, in bf16 where the hardware has it."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=native_bf16(images.device)):
        return model.read(height_channel(images, heights))


@torch.inference_mode()
def validate(model: ChestUNet, batches: Iterable[SlabBatch]) -> dict[str, float | None]:
    """Figures over all voxels of some batches, heights hidden and given.

    Args:
        model: in evaluation mode.
        batches: on the model's device.
    """
    counts = np.zeros((2, 8, 2))
    errors, lines = [], []
    for batch in batches:
        heights = batch.heights
        for k, given in enumerate((torch.full_like(heights, torch.nan), heights)):
            answer = read_batch(model, batch.images, given)
            counts[k] += _overlaps(_codes(answer.lobes.float().softmax(1)), batch.labels.cpu().numpy())
            if k == 0:  # where the height is given, telling it is no feat
                errors.append((answer.place[:, 0].float() - heights).abs().cpu().numpy())
        if batch.fissures is not None:
            inside = (batch.labels > 0) & (batch.labels < AIRWAY)
            seen = answer.fissures[:, 0].float()[inside]
            lines.append((seen.cpu().numpy(), batch.fissures[inside].cpu().numpy()))
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
    return torch.where(lung > torch.maximum(scores[:, 0], scores[:, 6]), lobe, other).cpu().numpy()


def _overlaps(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """``[8, 2]`` common and summed voxels of codes 0-6 and, last, of the lobes' union."""
    rows = [(found == code, truth == code) for code in range(7)]
    rows.append(((found > 0) & (found < 6), (truth > 0) & (truth < 6)))
    return np.array([[np.count_nonzero(a & b), np.count_nonzero(a) + np.count_nonzero(b)] for a, b in rows], float)
