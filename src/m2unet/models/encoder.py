"""The encoder of M²UNet: five blocks, a 2 x 2 max-pool before each but the first (Table I)."""

from __future__ import annotations

from torch import Tensor, nn

from m2unet.models.blocks import ConvPair, PoolPair, apply

STRIDE = 16
"""Pixels of the input per position of the deepest feature map, along each axis."""


EARLY = 3
"""Blocks up to the map at which finer explanations are taken."""


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
        self.blocks = nn.ModuleList(PoolPair(*size) if level else ConvPair(*size) for level, size in enumerate(sizes))

    def forward(self, images: Tensor, *, recompute: bool = False) -> list[Tensor]:
        """``[N, inputs, H, W]`` to five maps, ``[N, width, H, W]`` down to ``[N, deep, H/16, W/16]``."""
        maps: list[Tensor] = []
        for block in self.blocks:
            images = apply(block, images, recompute=recompute)
            maps.append(images)
        return maps

    def early(self, images: Tensor) -> Tensor:
        """The map of block :data:`EARLY` alone, ``[N, width, H/4, W/4]``."""
        for block in self.blocks[:EARLY]:
            images = block(images)
        return images

    def from_early(self, early: Tensor) -> Tensor:
        """The deepest map from that of :meth:`early`."""
        for block in self.blocks[EARLY:]:
            early = block(early)
        return early
