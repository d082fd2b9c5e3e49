"""A U-Net for whole slices: neighbours, the slice's height and the fissures seen as channels; it tells the height too.

It works at half the resolution of its images (pixels in blocks of 2 x 2 become channels, and its last convolution
gives each block's four pixels at once), which makes a step some four times cheaper than a U-Net of like width; a
network that has to be trained in hours on one core needs that more than it needs features of single pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2unet.config import ModelConfig
from m2unet.errors import ConfigError
from m2unet.models.base import LobeModel, check_bags, of_bags
from m2unet.models.batch import Batch, ModelOutput
from m2unet.models.blocks import ConvNormReLU, ConvPair, PoolPair, apply, double
from m2unet.models.fissures import FissureFinder

LEVELS = 5
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


@dataclass(frozen=True)
class ChestAnswer:
    """What the network says of ``N`` slices.

    Attributes:
        lobes: ``[N, classes, H, W]`` logits.
        place: ``[N, 2]`` height (-1 base, 1 apex) and log of its uncertainty.
        fissures: ``[N, 1, H, W]`` logits of a fissure that can be seen.
    """

    lobes: Tensor
    place: Tensor
    fissures: Tensor


class ChestUNet(LobeModel):
    """U-Net over 2 x 2 blocks of pixels, widths ``width * (1, 2, 3, 4, 5)``.

    Args:
        config: ``width``, ``classes`` and ``context`` are used.
    """

    stride = 2**LEVELS

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.fissures = FissureFinder(1 + 2 * config.context, 3 * config.width // 4)
        widths = [config.width * (level + 1) for level in range(LEVELS)]
        self.down = nn.ModuleList(
            [ConvPair(4 * (self.in_channels + 1), widths[0]), *(PoolPair(a, b) for a, b in pairwise(widths))]
        )
        self.join = nn.ModuleList(ConvNormReLU(below + width, width) for width, below in pairwise(widths))
        self.refine = nn.ModuleList(ConvNormReLU(width, width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 4 * config.classes, kernel_size=1)
        self.height = nn.Sequential(nn.Linear(widths[-1], 64), nn.ReLU(), nn.Linear(64, 2))

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Take over weights, also of a like network with fewer channels in; what they lack stays as it is.

        Args:
            weights: by name. Where a convolution has more channels in than its weights, the last ones get zeros, so
                that the network answers as the other did until it has learned to use them.

        Raises:
            ConfigError: weights that this network has not, or of another shape.
        """
        own = self.state_dict()
        for name, value in weights.items():
            mine = own.get(name)
            wide = mine is not None and mine.ndim == value.ndim == 4
            if mine is None or mine.shape != (
                value.shape[:1] + mine.shape[1:2] + value.shape[2:] if wide else value.shape
            ):
                raise ConfigError("These weights are of another network", found=f"{name} {tuple(value.shape)}")
            extra = mine.shape[1] - value.shape[1] if wide else 0
            if extra < 0:
                raise ConfigError("These weights have more channels in", found=value.shape[1], expected=mine.shape[1])
            own[name] = F.pad(value, (0, 0, 0, 0, 0, extra)) if extra else value
        self.load_state_dict(own)

    def forward(self, batch: Batch, lobes_for: Tensor | None = None) -> ModelOutput:
        """See :meth:`SeverityModel.forward`; a patch stands for its neighbours too, and its height is not known."""
        check_bags(batch.mask)
        lobe_bags = self._lobe_bags(batch, lobes_for)
        if lobe_bags is None:
            return ModelOutput()
        patches = of_bags(batch.inputs(position=False), batch.mask, lobe_bags)
        alone = patches.expand(-1, 1 + 2 * self.config.context, -1, -1)
        images = height_channel(alone, torch.full((len(patches),), torch.nan, device=patches.device))
        answer = self.read(images)
        unused = 0.0 * (answer.place.sum() + answer.fissures.sum())  # every part takes part in every step
        return ModelOutput(lobes=answer.lobes + unused, lobe_bags=lobe_bags)

    @property
    def in_channels(self) -> int:
        """The slice, its neighbours, and its height."""
        return 2 + 2 * self.config.context

    def segment(self, images: Tensor) -> Tensor:
        """See :meth:`m2unet.models.base.SeverityModel.segment`."""
        return self.read(images).lobes

    def read(self, images: Tensor) -> ChestAnswer:
        """Lobes, heights and fissures; the lobes' gradient stops at the fissures, which have a loss of their own.

        Args:
            images: ``[N, 2 + 2 context, H, W]``, the last channel from :func:`height_channel`.
        """
        self.check_images(images)
        lines = self.fissures(images[:, :-1], recompute=self.recompute)
        seen = lines.detach().sigmoid().to(images.dtype)
        images = F.pixel_unshuffle(torch.cat([images, seen], dim=1), 2)
        maps: list[Tensor] = []
        for block in self.down:
            images = apply(block, images, recompute=self.recompute)
            maps.append(images)
        place = self.height(images.float().amax(dim=(2, 3)))
        for level in reversed(range(LEVELS - 1)):
            images = apply(self.join[level], double(images), maps[level], recompute=self.recompute)
            images = apply(self.refine[level], images, recompute=self.recompute)
        return ChestAnswer(F.pixel_shuffle(self.head(images), 2), place, lines)
