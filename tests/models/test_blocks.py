"""The shared blocks: joining maps without concatenating them."""

from __future__ import annotations

import pytest
import torch

from m2unet.models.blocks import ConvNormReLU, ConvPair, apply


def test_joining_is_the_convolution_of_the_concatenation() -> None:
    torch.manual_seed(0)
    block = ConvNormReLU(6, 4).double()
    maps = [torch.randn(2, c, 8, 8, dtype=torch.float64, requires_grad=True) for c in (3, 1, 2)]
    joined = block(*maps)
    joined.square().sum().backward()
    gradients = [each.grad for each in maps]
    weight = block.conv.weight.grad
    assert weight is not None
    weight = weight.clone()
    block.zero_grad()
    whole = torch.cat(maps, dim=1).detach().requires_grad_()
    expected = block(whole)
    expected.square().sum().backward()
    torch.testing.assert_close(joined, expected)
    torch.testing.assert_close(torch.cat([g for g in gradients if g is not None], dim=1), whole.grad)
    torch.testing.assert_close(weight, block.conv.weight.grad)


def test_maps_must_fill_the_channels() -> None:
    with pytest.raises(ValueError, match=r"6 channels in all, found \[3, 1\]"):
        ConvNormReLU(6, 4)(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8))


def test_recomputation_keeps_less() -> None:
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[-1] += tensor.numel()
        return tensor

    block, images = ConvPair(8, 8), torch.randn(2, 8, 16, 16, requires_grad=True)
    for recompute in (False, True):
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            apply(block, images, recompute=recompute)
    assert kept[1] < kept[0]
