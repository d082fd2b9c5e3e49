"""Where fissures can be seen: a small network of two levels whose answer is a channel of the whole-chest network.

A fissure is a tenth as bright as a vessel and a pixel or two thick. A lobe network that has to find it among its
features soon learns where borders lie on average and does without. Here the lines have a loss of their own, and their
picture serves the lobe network and, after it, the spreading of lobes up to the lines.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2unet.models.blocks import ConvNormReLU, ConvPair, PoolPair, apply, double

LUNG_RANGE = (0.14, 0.45)
"""Part of the scaled images in which fissures lie: -1000 to -570 HU with the preset's window of -1200 to 200."""
NEAR_PIXELS = 13
"""Width of the surroundings that a pixel is compared with: wider than a fissure, narrower than a lobe."""
CONTRAST = 0.25
"""Differences from the surroundings are cut here: a vessel is no more than this either."""


def lung_channel(images: Tensor) -> Tensor:
    """Slices ``[N, c, H, W]`` with air-filled lung spread over [0, 1]: a fissure is a tenth of that, not a fiftieth."""
    low, high = LUNG_RANGE
    return ((images - low) / (high - low)).clamp(0, 1)


def local_contrast(lung: Tensor) -> Tensor:
    """What stands out from the lung around it, -1 to 1; 0 outside of air-filled lung.

    Args:
        lung: ``[N, c, H, W]`` from :func:`lung_channel`; 0 and 1 are taken for air outside and for soft tissue.
    """
    inside = ((lung > 0) & (lung < 1)).to(lung.dtype)
    mean = _around(lung * inside) / _around(inside).clamp_min(1e-3)
    return ((lung - mean) * inside / CONTRAST).clamp(-1, 1)


def _around(images: Tensor) -> Tensor:
    """Mean over a square of :data:`NEAR_PIXELS`, zeros beyond the edge; one axis after the other is much faster."""
    width, pad = NEAR_PIXELS, NEAR_PIXELS // 2
    rows = F.avg_pool2d(images.contiguous(), (width, 1), stride=1, padding=(pad, 0))
    return F.avg_pool2d(rows, (1, width), stride=1, padding=(0, pad))


class FissureFinder(nn.Module):
    """Logits of a visible fissure at every pixel, from a slice and its neighbours.

    Args:
        slices: the slice and its neighbours, the slice in the middle.
        width: channels of the upper level; the lower has twice as many.
    """

    def __init__(self, slices: int, width: int) -> None:
        super().__init__()
        self.middle = slices // 2
        self.top = ConvPair(4 * (slices + 1), width)
        self.below = PoolPair(width, 2 * width)
        self.join = ConvNormReLU(3 * width, width)
        self.head = nn.Conv2d(width, 4, kernel_size=1)

    def forward(self, images: Tensor, *, recompute: bool = False) -> Tensor:
        """Scaled slices ``[N, slices, H, W]``, H and W even multiples of 2, to logits ``[N, 1, H, W]``."""
        lung = lung_channel(images)
        shown = torch.cat([local_contrast(lung), lung[:, self.middle : self.middle + 1]], dim=1)
        top = apply(self.top, F.pixel_unshuffle(shown, 2), recompute=recompute)
        below = apply(self.below, top, recompute=recompute)
        return F.pixel_shuffle(self.head(apply(self.join, double(below), top, recompute=recompute)), 2)
