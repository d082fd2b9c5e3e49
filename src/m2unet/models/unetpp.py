"""U-Net++ (Zhou et al. 2018): nested skip paths; Table III's second row."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from m2unet.config import ModelConfig
from m2unet.models.base import LobeModel
from m2unet.models.blocks import ConvPair, PoolPair, apply, double

LEVELS = 5


class UNetPlusPlus(LobeModel):
    """Nested U-Net of ``width / 2 * (1, 2, 4, 8, 16)`` channels, without deep supervision.

    Node (i, j), level i and step j, convolves all earlier nodes of its level together with node (i + 1, j - 1)
    up-sampled (Eq. 1 of Zhou et al.). Up-sampling has no parameters, which the paper's 34.97 MiB calls for.

    Args:
        config: ``width`` (64 gives the paper's 32-64-128-256-512), ``classes`` and ``position`` are used.
    """

    stride = 2 ** (LEVELS - 1)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        first = max(config.width // 2, 1)
        widths = [first * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList([ConvPair(self.in_channels, first), *(PoolPair(a, b) for a, b in pairwise(widths))])
        self.nested = nn.ModuleDict(
            {
                f"{i}_{j}": ConvPair(j * widths[i] + widths[i + 1], widths[i])
                for i in range(LEVELS)
                for j in range(1, LEVELS - i)
            }
        )
        self.head = nn.Conv2d(first, config.classes, kernel_size=1)

    def segment(self, images: Tensor) -> Tensor:
        """See :meth:`m2unet.models.base.SeverityModel.segment`."""
        self.check_images(images)
        levels: list[list[Tensor]] = []
        for depth, block in enumerate(self.down):
            images = apply(block, images, recompute=self.recompute)
            levels.append([images])
            for i in range(depth - 1, -1, -1):
                node = self.nested[f"{i}_{len(levels[i])}"]
                levels[i].append(apply(node, *levels[i], double(levels[i + 1][-1]), recompute=self.recompute))
        return self.head(levels[0][-1])
