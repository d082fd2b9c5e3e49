"""The encoder of M²UNet: five blocks, a 2 x 2 max-pool before each but the first (Table I)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from m2unet.models.blocks import ConvPair, apply

STRIDE = 16
"""Pixels of the input per position of the deepest feature map, along each axis."""


class EncoderBlock(nn.Module):
    """Optional 2 x 2 max-pool, then two convolutions with normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, pool: bool) -> None:
        super().__init__()
        self.pool = pool
        self.convs = ConvPair(inputs, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H, W]``, or half of H and W with a pool."""
        return self.convs(F.max_pool2d(images, 2) if self.pool else images)


class Encoder(nn.Module):
    """Five blocks; the maps of all are handed on, the deepest last.

    Args:
        inputs: input channels, 1 or 4 (with position).
        width: channels of blocks 1-4.
        deep: channels of block 5.
    """

    def __init__(self, inputs: int, width: int, deep: int) -> None:
        super().__init__()
        sizes = [(inputs, width), *[(width, width)] * 3, (width, deep)]
        self.blocks = nn.ModuleList(EncoderBlock(a, b, pool=level > 0) for level, (a, b) in enumerate(sizes))

    def forward(self, images: Tensor, *, recompute: bool = False) -> list[Tensor]:
        """``[N, inputs, H, W]`` to five maps, ``[N, width, H, W]`` down to ``[N, deep, H/16, W/16]``."""
        maps: list[Tensor] = []
        for block in self.blocks:
            images = apply(block, images, recompute=recompute)
            maps.append(images)
        return maps
