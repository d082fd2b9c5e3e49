"""Global contrast pooling against a hand-worked example, a NumPy reference and numerical gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from m2unet.models.pooling import GlobalContrastPooling, Pooled

NORMS = ["batch", "bias", "none"]
SIMILARITIES = ["cosine", "dot"]


def reference(
    pooling: GlobalContrastPooling, bags: NDArray[np.float64], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Eqs. 1-2 in plain loops: similarity, normalisation over all real instances, maximum over each bag."""
    concepts = pooling.concepts.detach().numpy()
    instances = [(b, k) for b in range(bags.shape[0]) for k in range(bags.shape[1]) if mask[b, k]]
    scores = np.full((*bags.shape[:2], len(concepts)), -np.inf)
    for b, k in instances:
        for p, concept in enumerate(concepts):
            value = float(np.dot(bags[b, k], concept))
            if pooling.similarity == "cosine":
                value /= np.linalg.norm(bags[b, k]) * np.linalg.norm(concept)
            scores[b, k, p] = value
    for p in range(len(concepts)):
        column = np.array([scores[b, k, p] for b, k in instances])
        if pooling.norm is not None:
            weight, bias = (float(t.detach()[p]) for t in (pooling.norm.weight, pooling.norm.bias))
            column = weight * (column - column.mean()) / math.sqrt(column.var() + pooling.norm.eps) + bias
        if pooling.bias is not None:
            column = column + float(pooling.bias.detach()[p])
        for (b, k), value in zip(instances, column, strict=True):
            scores[b, k, p] = value
    return scores.max(axis=1), scores.argmax(axis=1)


def make(norm: str = "batch", similarity: str = "cosine", d: int = 6, p: int = 4) -> GlobalContrastPooling:
    torch.manual_seed(1)
    pooling = GlobalContrastPooling(d, p, norm=norm, similarity=similarity).double()  # type: ignore[arg-type]
    with torch.no_grad():
        if pooling.norm is not None:
            pooling.norm.weight.copy_(torch.tensor([1.5, 0.5, -2.0, 1.0])[:p])
            pooling.norm.bias.copy_(torch.tensor([0.1, -0.3, 0.0, 2.0])[:p])
        if pooling.bias is not None:
            pooling.bias.copy_(torch.tensor([0.1, -0.3, 0.0, 2.0])[:p])
    return pooling


def make_bags(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    bags = torch.randn(3, 5, 6, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]).bool()
    return bags, mask


def test_hand_worked_example() -> None:
    # Concepts along x and y. Bag 1: (3, 4), (0, 2); bag 2: (-1, 0), (0, -5). Cosines (x, y):
    # (.6, .8), (0, 1) | (-1, 0), (0, -1). Column x: mean -.1, variance (.49 + .01 + .81 + .01) / 4 = .33.
    # Column y: mean .2, variance (.36 + .64 + .04 + 1.44) / 4 = .62.
    pooling = GlobalContrastPooling(2, 2).double()
    with torch.no_grad():
        pooling.concepts.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
    bags = torch.tensor([[[3.0, 4.0], [0.0, 2.0]], [[-1.0, 0.0], [0.0, -5.0]]], dtype=torch.float64)
    pooled = pooling(bags)
    x, y = math.sqrt(0.33 + 1e-5), math.sqrt(0.62 + 1e-5)
    expected = torch.tensor([[0.7 / x, 0.8 / y], [0.1 / x, -0.2 / y]], dtype=torch.float64)
    torch.testing.assert_close(pooled.values, expected, rtol=0, atol=1e-6)
    assert pooled.winners.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_numpy_reference(norm: str, similarity: str) -> None:
    pooling = make(norm, similarity)
    bags, mask = make_bags()
    pooled = pooling(bags, mask)
    values, winners = reference(pooling, bags.numpy(), mask.numpy())
    np.testing.assert_allclose(pooled.values.detach().numpy(), values, atol=1e-6)
    np.testing.assert_array_equal(pooled.winners.numpy(), winners)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_gradient_is_numerically_right(norm: str, similarity: str) -> None:
    pooling = make(norm, similarity)
    bags, mask = make_bags()
    names = [name for name, _ in pooling.named_parameters()]

    def run(instances: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        values = dict(zip(names, parameters, strict=True))
        pooled: Pooled = torch.func.functional_call(pooling, values, (instances, mask))
        return pooled.values

    inputs = [bags.requires_grad_(), *(each.detach().clone().requires_grad_() for each in pooling.parameters())]
    assert torch.autograd.gradcheck(run, inputs)


def test_masked_instances_get_no_gradient() -> None:
    bags, mask = make_bags()
    bags.requires_grad_()
    make()(bags, mask).values.square().sum().backward()
    assert bags.grad is not None
    assert bool((bags.grad[~mask] == 0).all())
    assert bool((bags.grad[mask] != 0).any())


@pytest.mark.parametrize("norm", NORMS)
def test_order_of_instances_does_not_matter(norm: str) -> None:
    pooling = make(norm)
    bags, mask = make_bags()
    before = pooling(bags, mask)
    order = torch.tensor([3, 0, 4, 2, 1])
    after = pooling(bags[:, order], mask[:, order])
    torch.testing.assert_close(after.values, before.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(order[after.winners], before.winners)


def test_masked_values_do_not_matter() -> None:
    bags, mask = make_bags()
    other = bags.clone()
    other[~mask] = 1e9
    assert torch.equal(make()(bags, mask).values, make()(other, mask).values)


def test_masked_instance_loses_even_to_negative_scores() -> None:
    pooling = GlobalContrastPooling(2, 1, norm="none", similarity="dot")
    with torch.no_grad():
        pooling.concepts.copy_(torch.tensor([[1.0, 0.0]]))
    bags = torch.tensor([[[5.0, 0.0], [-3.0, 0.0], [-2.0, 0.0]]])
    pooled = pooling(bags, torch.tensor([[False, True, True]]))
    assert pooled.values.tolist() == [[-2.0]]
    assert pooled.winners.tolist() == [[2]]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("training", [True, False])
def test_all_zero_features_stay_finite(norm: str, training: bool) -> None:
    pooling = GlobalContrastPooling(6, 4, norm=norm).train(training)  # type: ignore[arg-type]
    bags = torch.zeros(2, 3, 6, requires_grad=True)
    pooled = pooling(bags)
    pooled.values.sum().backward()
    assert bags.grad is not None
    for tensor in (pooled.values, bags.grad, *(p.grad for p in pooling.parameters() if p.grad is not None)):
        assert bool(torch.isfinite(tensor).all())


def test_one_instance_in_all_of_training() -> None:
    pooling = GlobalContrastPooling(6, 4)
    bags = torch.randn(1, 1, 6, requires_grad=True)
    pooled = pooling(bags)
    pooled.values.sum().backward()
    assert bags.grad is not None and bool(torch.isfinite(bags.grad).all())
    assert bool(torch.isfinite(pooled.values).all())
    assert pooled.winners.tolist() == [[0] * 4]
    assert pooling.norm is not None and torch.equal(pooling.norm.running_mean, torch.zeros(4))


def test_running_statistics_are_those_of_real_instances() -> None:
    pooling = make()
    bags, mask = make_bags()
    assert pooling.norm is not None
    pooling.norm.momentum = 1.0
    pooling(bags, mask)
    unit = torch.nn.functional.normalize(bags[mask], dim=1) @ torch.nn.functional.normalize(pooling.concepts, dim=1).T
    torch.testing.assert_close(pooling.norm.running_mean, unit.mean(0).detach(), atol=1e-7, rtol=0)
    torch.testing.assert_close(pooling.norm.running_var, unit.var(0).detach(), atol=1e-7, rtol=0)


def test_autocast_leaves_the_scores_in_float32() -> None:
    pooling = GlobalContrastPooling(6, 4).eval()
    bags = torch.randn(2, 3, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pooling(bags)
    assert pooled.values.dtype == torch.float32
    assert torch.equal(pooled.values, pooling(bags.float()).values)


@pytest.mark.parametrize(
    ("instances", "mask", "words"),
    [
        (torch.zeros(2, 3, 5), None, "expected"),
        (torch.zeros(3, 6), None, "expected"),
        (torch.zeros(2, 0, 6), None, "without instances"),
        (torch.zeros(2, 3, 6), torch.ones(2, 4, dtype=torch.bool), "mask"),
        (torch.zeros(2, 3, 6), torch.ones(2, 3), "mask"),
        (torch.zeros(2, 3, 6), torch.tensor([[True, False, False], [False] * 3]), r"bags \[1\]"),
    ],
)
def test_wrong_bags_are_refused(instances: torch.Tensor, mask: torch.Tensor | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GlobalContrastPooling(6, 4)(instances, mask)
