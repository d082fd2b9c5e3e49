"""Building blocks shared by the convolutional networks, and recomputation of activations in the backward pass."""

from __future__ import annotations

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

    def forward(self, images: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H, W]``."""
        return F.relu(self.norm(self.conv(images)), inplace=True)


class ConvPair(nn.Sequential):
    """Two :class:`ConvNormReLU` in a row.

    Args:
        inputs: channels in.
        outputs: channels out.
        middle: channels between; ``outputs`` if None.
    """

    def __init__(self, inputs: int, outputs: int, middle: int | None = None) -> None:
        middle = outputs if middle is None else middle
        super().__init__(ConvNormReLU(inputs, middle), ConvNormReLU(middle, outputs))


def apply(module: nn.Module, *inputs: Tensor, recompute: bool) -> Tensor:
    """Call a module, or, with ``recompute``, call it and drop what it would keep for the backward pass.

    The backward pass then runs the module a second time, with the running statistics of normalisations frozen, so
    that values, gradients and statistics are those of the plain call. The module must not draw random numbers.
    """
    if not (recompute and torch.is_grad_enabled()):
        return module(*inputs)
    return checkpoint(module, *inputs, use_reentrant=False, context_fn=_contexts, preserve_rng_state=False)


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), frozen_running_statistics()
