"""The joint loss against hand-written references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from m2unet.anatomy import UNDECIDED
from m2unet.models.batch import Batch, ModelOutput
from m2unet.training.distributed import World
from m2unet.training.losses import joint_loss, severity_weight


def make_batch(severity: list[int], has_lobes: list[bool], n: int = 2, size: int = 4, classes: int = 6) -> Batch:
    count = len(severity)
    generator = torch.Generator().manual_seed(0)
    return Batch(
        patches=torch.zeros(count, n, 1, size, size),
        mask=torch.ones(count, n, dtype=torch.bool),
        position=None,
        severity=torch.tensor(severity),
        lobes=torch.randint(0, classes, (count, n, size, size), generator=generator),
        has_lobes=torch.tensor(has_lobes),
    )


def soft_dice(logits: np.ndarray, truth: np.ndarray) -> float:
    """Mean over classes of the soft Dice of all pixels, from the definition."""
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    values = []
    for code in range(logits.shape[1]):
        p, g = probability[:, code], truth == code
        values.append(2 * (p * g).sum() / (p.sum() + g.sum()))
    return float(np.mean(values))


def test_severity_loss_is_cross_entropy_over_labelled_bags() -> None:
    batch = make_batch([1, -1, 0], [False] * 3)
    logits = torch.tensor([[0.2, 1.1], [5.0, -5.0], [0.3, -0.4]])
    losses = joint_loss(ModelOutput(severity=logits), batch, lambda_mil=0.01, world=World())
    expected = (
        -(np.log(np.exp(1.1) / (np.exp(0.2) + np.exp(1.1))) + np.log(np.exp(0.3) / (np.exp(0.3) + np.exp(-0.4)))) / 2
    )
    assert float(losses.severity) == pytest.approx(expected, rel=1e-6)
    assert float(losses.total) == pytest.approx(0.01 * expected, rel=1e-6)
    assert float(losses.lobes) == 0.0


def test_lobe_loss_is_cross_entropy_plus_one_minus_dice_of_masked_bags() -> None:
    batch = make_batch([1, 0, 1], [True, False, True])
    logits = torch.randn(4, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    losses = joint_loss(ModelOutput(lobes=logits, lobe_bags=batch.has_lobes), batch, lambda_mil=0.01, world=World())
    assert batch.lobes is not None
    expected = 0.0
    for part, bag in ((logits[:2], 0), (logits[2:], 2)):
        truth = batch.lobes[bag]
        expected += float(functional.cross_entropy(part, truth)) + 1 - soft_dice(part.numpy(), truth.numpy())
    # MONAI's Dice carries a smoothing term of 1e-5 in numerator and denominator
    assert float(losses.lobes) == pytest.approx(expected / 2, abs=1e-4)
    assert float(losses.severity) == 0.0


def test_each_patch_carries_the_label_where_a_method_scores_patches() -> None:
    batch = make_batch([1, 0], [False, False])
    logits = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(2))
    losses = joint_loss(ModelOutput(instance_severity=logits), batch, lambda_mil=1.0, world=World())
    expected = functional.cross_entropy(logits.reshape(4, 2), torch.tensor([1, 1, 0, 0]))
    assert float(losses.total) == pytest.approx(float(expected), rel=1e-6)


def test_nothing_to_learn_from_is_zero_and_differentiable() -> None:
    batch = make_batch([-1, -1], [False, False])
    logits = torch.zeros(2, 2, requires_grad=True)
    losses = joint_loss(ModelOutput(severity=logits), batch, lambda_mil=1.0, world=World())
    losses.total.backward()
    assert losses.total.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_undecided_pixels_count_in_neither_cross_entropy_nor_dice() -> None:
    batch = make_batch([1, 0], [True, True])
    assert batch.lobes is not None
    batch.lobes[0, 1, :, 2:] = UNDECIDED
    batch.lobes[1] = UNDECIDED  # a bag of nothing else adds nothing
    logits = torch.randn(4, 6, 4, 4, generator=torch.Generator().manual_seed(4), requires_grad=True)
    losses = joint_loss(ModelOutput(lobes=logits, lobe_bags=batch.has_lobes), batch, lambda_mil=0.01, world=World())
    losses.total.backward()
    known = batch.lobes[0] != UNDECIDED
    picked = logits.detach()[:2].permute(0, 2, 3, 1)[known]  # [P, 6]
    truth = batch.lobes[0][known]
    expected = float(functional.cross_entropy(picked, truth)) + 1 - soft_dice(picked.numpy(), truth.numpy())
    assert float(losses.lobes) == pytest.approx(expected / 2, abs=1e-4)
    assert logits.grad is not None
    assert not logits.grad[1, :, :, 2:].any() and not logits.grad[2:].any()
    assert logits.grad[0].any()


def test_lambda_weighs_two_tasks_and_has_no_say_in_one() -> None:
    assert severity_weight({"severity", "lobes"}, 0.01) == 0.01
    assert severity_weight({"severity"}, 0.01) == severity_weight(frozenset({"lobes"}), 0.0) == 1.0


def test_patches_of_bags_without_a_label_give_a_zero_that_can_be_differentiated() -> None:
    batch = make_batch([-1, -1], [False, False])
    logits = torch.randn(2, 2, 2, requires_grad=True)
    losses = joint_loss(ModelOutput(instance_severity=logits), batch, lambda_mil=1.0, world=World())
    losses.total.backward()
    assert losses.total.item() == 0.0 and logits.grad is not None and not logits.grad.any()
