"""Convolution, normalisation and ReLU in pieces: exact values and gradients with little memory.

A step of many bags has one set of batch statistics, so its patches cannot be trained in separate passes. But a layer
needs all patches at once only for its statistics, going forward, and for two sums a channel, going back; everything
else is patch by patch. Nothing but the layer's input is kept; the backward pass convolves again, twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PIECE = 1 << 25
"""Values of a piece's result (128 MiB in float32)."""


class StreamedConvNormReLU(torch.autograd.Function):
    """``relu(batch_norm(conv3x3(maps)))`` with the batch's own statistics.

    Call as ``apply(eps, weight, bias, scale, shift, *maps)``; returns the result, the mean and the (biased) variance of
    each channel and the number of values they were taken over. The maps ``[N, c_i, H, W]`` count as if concatenated.
    """

    @staticmethod
    def forward(
        ctx: Any, eps: float, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, *maps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.autocast = torch.is_autocast_enabled(weight.device.type)
        result, mean, squares, count = None, torch.zeros_like(scale), torch.zeros_like(scale), 0
        for part in _pieces(maps, weight):
            values = convolve([each[part] for each in maps], weight, bias)
            if result is None:
                shape = (maps[0].shape[0], *values.shape[1:])
                result = values.new_empty(shape).to(memory_format=torch.channels_last)
            result[part] = values
            mean, squares, count = _merge(mean, squares, count, values)
        assert result is not None
        variance = squares / max(count, 1)
        inverse = (variance + eps).rsqrt()
        for part in _pieces(maps, weight):
            result[part] = _normalise(result[part], mean, inverse, scale, shift).relu_()
        ctx.save_for_backward(weight, bias, scale, shift, mean, inverse, *maps)
        ctx.count = count
        ctx.mark_non_differentiable(mean, variance)
        return result, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, scale, shift, _, inverse, *maps = ctx.saved_tensors
        for_result = gradients[0]
        sums = torch.zeros(2, len(scale), dtype=scale.dtype, device=scale.device)
        with torch.autocast(weight.device.type, dtype=torch.bfloat16, enabled=ctx.autocast):
            for part in _pieces(maps, weight):
                with torch.no_grad():
                    standard, gradient = _inside(
                        convolve([each[part] for each in maps], weight, bias), for_result[part], ctx, scale, shift
                    )
                    sums[0] += gradient.sum(dim=(0, 2, 3))
                    sums[1] += (gradient * standard).sum(dim=(0, 2, 3))
            needed = ctx.needs_input_grad[5:]
            for_maps = [torch.empty_like(each) if wanted else None for each, wanted in zip(maps, needed, strict=True)]
            for_weight, for_bias = torch.zeros_like(weight), torch.zeros_like(bias)
            for part in _pieces(maps, weight):
                inputs = [each[part].detach().requires_grad_(want) for each, want in zip(maps, needed, strict=True)]
                leaves = [weight.detach().requires_grad_(), bias.detach().requires_grad_()]
                with torch.enable_grad():
                    values = convolve(inputs, *leaves)
                with torch.no_grad():
                    standard, gradient = _inside(values.detach(), for_result[part], ctx, scale, shift)
                    gradient -= _row(sums[0] / ctx.count)
                    gradient -= standard.mul_(_row(sums[1] / ctx.count))
                    gradient *= _row(scale * inverse)
                wanted = [each for each in inputs if each.requires_grad]
                found = torch.autograd.grad(values, [*leaves, *wanted], gradient.to(values.dtype))
                for_weight += found[0]
                for_bias += found[1]
                for target, piece in zip([t for t in for_maps if t is not None], found[2:], strict=True):
                    target[part] = piece
        return None, for_weight, for_bias, sums[1], sums[0], *for_maps


def convolve(maps: list[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """The 3 x 3 convolution of maps as if concatenated; the sum of partial ones, so that they need not be."""
    weights = weight.split([each.shape[1] for each in maps], dim=1)
    result = F.conv2d(maps[0], weights[0], bias, padding=1)
    for each, part in zip(maps[1:], weights[1:], strict=True):
        result = result + F.conv2d(each, part, padding=1)
    return result


def _pieces(maps: Any, weight: Tensor) -> Iterator[slice]:
    count, _, height, width = maps[0].shape
    step = max(1, PIECE // (weight.shape[0] * height * width))
    for start in range(0, count, step):
        yield slice(start, start + step)


def _merge(mean: Tensor, squares: Tensor, count: int, values: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean, sum of squared deviations and count with further values (Chan et al. 1979)."""
    more = values.numel() // values.shape[1]
    variance, middle = torch.var_mean(values.to(mean.dtype), dim=(0, 2, 3), correction=0)
    total = count + more
    step = middle - mean
    return mean + step * (more / total), squares + variance * more + step.square() * (count * more / total), total


def _row(vector: Tensor) -> Tensor:
    return vector.view(1, -1, 1, 1)


def _normalise(values: Tensor, mean: Tensor, inverse: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    factor = scale * inverse
    return torch.addcmul(_row(shift - mean * factor), values.to(scale.dtype), _row(factor)).to(values.dtype)


def _inside(values: Tensor, for_result: Tensor, ctx: Any, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Standardised values, and the gradient just below the ReLU, of a piece; both in the parameters' dtype."""
    mean, inverse = ctx.saved_tensors[4:6]
    positive = _normalise(values, mean, inverse, scale, shift) > 0
    standard = (values.to(scale.dtype) - _row(mean)).mul_(_row(inverse))
    return standard, for_result.to(scale.dtype) * positive
