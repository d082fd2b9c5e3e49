"""A U-Net for whole slices of a chest: neighbouring slices and the slice's height as channels, and a head for height.

It works at half the resolution of its images (pixels in blocks of 2 x 2 become channels, and its last convolution
gives each block's four pixels at once), which makes a step some four times cheaper than a U-Net of like width; a
network that has to be trained in hours on one core needs that more than it needs features of single pixels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2unet.config import ModelConfig
from m2unet.models.base import LobeModel, check_bags, of_bags
from m2unet.models.batch import Batch, ModelOutput
from m2unet.models.blocks import ConvNormReLU, ConvPair, PoolPair, apply, double

LEVELS = 5
LUNG_RANGE = (0.14, 0.45)
"""Part of the scaled images in which fissures lie: -1000 to -570 HU with the preset's window of -1200 to 200."""
UNKNOWN_HEIGHT = -2.0
"""What the height channel holds where the height is not known; known heights are halved and lie in [-1.5, 1.5]."""


def height_channel(images: Tensor, heights: Tensor) -> Tensor:
    """Images ``[N, c, H, W]`` with one more channel that holds each slice's height.

    Args:
        images: the slices.
        heights: ``[N]``, -1 at the lungs' base, 1 at the apex, beyond both outside; NaN where not known.
    """
    known = (heights / 2).clamp(-1.5, 1.5)
    values = torch.where(heights.isnan(), torch.full_like(known, UNKNOWN_HEIGHT), known)
    plane = values.to(images.dtype)[:, None, None, None].expand(-1, 1, *images.shape[2:])
    return torch.cat([images, plane], dim=1)


def lung_channel(images: Tensor) -> Tensor:
    """Slices ``[N, 1, H, W]`` with the air-filled lung spread over [0, 1]: a fissure is a tenth of that, not a fiftieth."""
    low, high = LUNG_RANGE
    return ((images - low) / (high - low)).clamp(0, 1)


class ChestUNet(LobeModel):
    """U-Net over 2 x 2 blocks of pixels, widths ``width * (1, 2, 3, 4, 5)``.

    Args:
        config: ``width``, ``classes`` and ``context`` are used.
    """

    stride = 2**LEVELS

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        widths = [config.width * (level + 1) for level in range(LEVELS)]
        self.down = nn.ModuleList(
            [ConvPair(4 * (self.in_channels + 1), widths[0]), *(PoolPair(a, b) for a, b in pairwise(widths))]
        )
        self.join = nn.ModuleList(ConvNormReLU(below + width, width) for width, below in pairwise(widths))
        self.refine = nn.ModuleList(ConvNormReLU(width, width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 4 * config.classes, kernel_size=1)
        self.height = nn.Sequential(nn.Linear(widths[-1], 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, batch: Batch, lobes_for: Tensor | None = None) -> ModelOutput:
        """See :meth:`SeverityModel.forward`; a patch stands for its neighbours too, and its height is not known."""
        check_bags(batch.mask)
        lobe_bags = self._lobe_bags(batch, lobes_for)
        if lobe_bags is None:
            return ModelOutput()
        patches = of_bags(batch.inputs(position=False), batch.mask, lobe_bags)
        alone = patches.expand(-1, 1 + 2 * self.config.context, -1, -1)
        images = height_channel(alone, torch.full((len(patches),), torch.nan, device=patches.device))
        logits, place = self.segment_and_locate(images)
        return ModelOutput(lobes=logits + 0.0 * place.sum(), lobe_bags=lobe_bags)  # the head takes part in every step

    @property
    def in_channels(self) -> int:
        """The slice, its neighbours, and its height."""
        return 2 + 2 * self.config.context

    def segment(self, images: Tensor) -> Tensor:
        """See :meth:`m2unet.models.base.SeverityModel.segment`."""
        return self.segment_and_locate(images)[0]

    def segment_and_locate(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Lobe logits, and the height of each slice in the chest as the network sees it.

        Args:
            images: ``[N, 2 + 2 context, H, W]``, the last channel from :func:`height_channel`.

        Returns:
            logits ``[N, classes, H, W]``; ``[N, 2]`` height (-1 base, 1 apex) and log of its uncertainty.
        """
        self.check_images(images)
        maps: list[Tensor] = []
        middle = self.config.context
        images = torch.cat([images, lung_channel(images[:, middle : middle + 1])], dim=1)
        images = F.pixel_unshuffle(images, 2)
        for block in self.down:
            images = apply(block, images, recompute=self.recompute)
            maps.append(images)
        place = self.height(images.float().amax(dim=(2, 3)))
        for level in reversed(range(LEVELS - 1)):
            images = apply(self.join[level], double(images), maps[level], recompute=self.recompute)
            images = apply(self.refine[level], images, recompute=self.recompute)
        return F.pixel_shuffle(self.head(images), 2), place
