"""Layers in pieces: values, gradients and statistics of the ordinary layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from m2unet.models import streamed
from m2unet.models.blocks import ConvNormReLU, PoolPair, stream


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "PIECE", 2 * 5 * 8 * 8)


def results(layer: nn.Module, maps: list[Tensor], gradient: Tensor) -> list[Tensor]:
    inputs = [each.clone().requires_grad_() for each in maps]
    found = layer(*inputs)
    found.backward(gradient)
    rest = [p.grad for p in layer.parameters()] + [b.clone().float() for b in layer.buffers()]
    return [found.detach(), *(each.grad for each in inputs), *rest]  # type: ignore[list-item]


def two(make: type[nn.Module], *sizes: int) -> tuple[nn.Module, nn.Module]:
    plain, pieces = make(*sizes).double(), make(*sizes).double()
    pieces.load_state_dict(plain.state_dict())
    stream(pieces)
    return plain.train(), pieces.train()


@pytest.mark.parametrize("channels", [(3,), (2, 4)])
def test_a_layer_in_pieces_is_the_layer(channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    plain, pieces = two(ConvNormReLU, sum(channels), 5)
    maps = [torch.randn(7, c, 8, 8, dtype=torch.float64) for c in channels]
    gradient = torch.randn(7, 5, 8, 8, dtype=torch.float64)
    for found, expected in zip(results(pieces, maps, gradient), results(plain, maps, gradient), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_pooled_pair_in_pieces_is_the_pair() -> None:
    torch.manual_seed(1)
    plain, pieces = two(PoolPair, 3, 5)
    maps = [torch.randn(4, 3, 16, 16, dtype=torch.float64)]
    gradient = torch.randn(4, 5, 8, 8, dtype=torch.float64)
    for found, expected in zip(results(pieces, maps, gradient), results(plain, maps, gradient), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_little_is_kept_for_the_backward_pass() -> None:
    _, pieces = two(ConvNormReLU, 3, 5)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        pieces(images)
    assert sum(kept) < images.numel() + 1000
    assert 4 * 5 * 8 * 8 not in kept


def test_in_evaluation_nothing_changes() -> None:
    plain, pieces = two(ConvNormReLU, 3, 5)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(pieces.eval()(images), plain.eval()(images), rtol=0, atol=0)


def test_mixed_precision_keeps_the_inputs_dtype() -> None:
    torch.manual_seed(2)
    layer = ConvNormReLU(3, 5).train()
    stream(layer)
    images = torch.randn(6, 3, 8, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(images)
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert images.grad is not None and images.grad.dtype == torch.float32
    assert layer.conv.weight.grad is not None and layer.conv.weight.grad.dtype == torch.float32
