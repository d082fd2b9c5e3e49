"""U-Net (Ronneberger et al. 2015) with batch normalisation and up-sampling + convolution: Table III's first row."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from m2unet.config import ModelConfig
from m2unet.models.base import LobeModel
from m2unet.models.blocks import ConvPair, PoolPair, Rise, apply

LEVELS = 5


class UNet(LobeModel):
    """U-Net of ``width * (1, 2, 4, 8, 16)`` channels: 34,526,279 parameters at width 64, one channel in, 7 classes.

    Args:
        config: ``width``, ``classes`` and ``position`` are used.
    """

    stride = 2 ** (LEVELS - 1)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        widths = [config.width * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(
            [ConvPair(self.in_channels, widths[0]), *(PoolPair(a, b) for a, b in pairwise(widths))]
        )
        self.rise = nn.ModuleList(Rise(2 * width, width) for width in widths[-2::-1])
        self.join = nn.ModuleList(ConvPair(2 * width, width) for width in widths[-2::-1])
        self.head = nn.Conv2d(config.width, config.classes, kernel_size=1)

    def segment(self, images: Tensor) -> Tensor:
        """See :meth:`m2unet.models.base.SeverityModel.segment`."""
        self.check_images(images)
        maps: list[Tensor] = []
        for block in self.down:
            images = apply(block, images, recompute=self.recompute)
            maps.append(images)
        for rise, join, skip in zip(self.rise, self.join, maps[-2::-1], strict=True):
            images = apply(rise, images, recompute=self.recompute)
            images = apply(join, images, skip, recompute=self.recompute)
        return self.head(images)
