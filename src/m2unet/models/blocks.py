"""Building blocks shared by the convolutional networks, and recomputation of activations in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from m2unet.models.norm import BatchNorm, frozen_running_statistics


class ConvNormReLU(nn.Module):
    """3 x 3 convolution with bias and padding 1, batch normalisation, ReLU: "cbr" of Table I.

    Args:
        inputs: channels in.
        outputs: channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        self.norm = BatchNorm(outputs)

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps ``[N, c_i, H, W]``, as if concatenated in order, to ``[N, outputs, H, W]``.

        Raises:
            ValueError: the c_i do not add up to the channels in.
        """
        return F.relu(self.norm(self._convolve(maps)), inplace=True)

    def _convolve(self, maps: tuple[Tensor, ...]) -> Tensor:
        if len(maps) == 1:
            return self.conv(maps[0])
        channels = [each.shape[1] for each in maps]
        if sum(channels) != self.conv.in_channels:
            raise ValueError(f"expected {self.conv.in_channels} channels in all, found {channels}")
        # The sum of partial convolutions is that of the concatenation, which need not be held: a fifth of the memory.
        weights = self.conv.weight.split(channels, dim=1)
        result = F.conv2d(maps[0], weights[0], self.conv.bias, padding=1)
        for each, weight in zip(maps[1:], weights[1:], strict=True):
            result.add_(F.conv2d(each, weight, padding=1))
        return result


class ConvPair(nn.Module):
    """Two :class:`ConvNormReLU` in a row.

    Args:
        inputs: channels in.
        outputs: channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = ConvNormReLU(inputs, outputs)
        self.second = ConvNormReLU(outputs, outputs)

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps as :meth:`ConvNormReLU.forward` takes them, to ``[N, outputs, H, W]``."""
        return self.second(self.first(*maps))


class PoolPair(ConvPair):
    """A 2 x 2 max-pool, then two :class:`ConvNormReLU`."""

    def forward(self, *maps: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H/2, W/2]``."""
        return super().forward(*(halve(each) for each in maps))


class Rise(nn.Module):
    """Nearest-neighbour up-sampling by two, then :class:`ConvNormReLU`.

    Args:
        inputs: channels in.
        outputs: channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvNormReLU(inputs, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, 2H, 2W]``."""
        return self.conv(double(images))


def halve(images: Tensor) -> Tensor:
    """2 x 2 max-pool, ``[N, C, H, W]`` to ``[N, C, H/2, W/2]``."""
    return F.max_pool2d(images, 2)


def double(images: Tensor) -> Tensor:
    """Nearest-neighbour up-sampling by two, ``[N, C, H, W]`` to ``[N, C, 2H, 2W]``."""
    return F.interpolate(images, scale_factor=2, mode="nearest")


def apply(module: Callable[..., Tensor], *inputs: Tensor, recompute: bool) -> Tensor:
    """Call a module, or, with ``recompute``, call it and drop what it would keep for the backward pass.

    The backward pass then runs the module a second time, with the running statistics of normalisations frozen, so
    that values, gradients and statistics are those of the plain call. The module must not draw random numbers.
    """
    if not (recompute and torch.is_grad_enabled()):
        return module(*inputs)
    return checkpoint(module, *inputs, use_reentrant=False, context_fn=_contexts, preserve_rng_state=False)


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), frozen_running_statistics()
