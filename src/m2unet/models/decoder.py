"""The decoder of M²UNet: four blocks that double the resolution and join the encoder's maps, then a 1 x 1 head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from m2unet.models.blocks import ConvNormReLU, Rise, apply


class DecoderBlock(nn.Module):
    """Up-sampling and convolution, join with the encoder's map of that size, two convolutions.

    Args:
        inputs: channels of the coarser map.
        width: channels of the skip and of the result.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.rise = Rise(inputs, width)
        self.join = ConvNormReLU(2 * width, width)
        self.last = ConvNormReLU(width, width)

    def forward(self, images: Tensor, skip: Tensor, *, recompute: bool = False) -> Tensor:
        """``[N, inputs, H, W]`` and skip ``[N, width, 2H, 2W]`` to ``[N, width, 2H, 2W]``."""
        images = apply(self.rise, images, recompute=recompute)
        images = apply(self.join, images, skip, recompute=recompute)
        return apply(self.last, images, recompute=recompute)


class Decoder(nn.Module):
    """Blocks 5 to 2 and the head, block 1.

    Args:
        deep: channels of the encoder's block 5.
        width: channels of its other blocks and of this decoder.
        classes: lobe classes c.
    """

    def __init__(self, deep: int, width: int, classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DecoderBlock(inputs, width) for inputs in (deep, width, width, width))
        self.head = nn.Conv2d(width, classes, kernel_size=1)

    def forward(self, maps: Sequence[Tensor], *, recompute: bool = False) -> Tensor:
        """The encoder's five maps to logits ``[N, c, H, W]``."""
        images = maps[-1]
        skips = maps[-2::-1]
        for block, skip in zip(self.blocks[:-1], skips[:-1], strict=True):
            images = apply(block, images, skip, recompute=recompute)
        # At full resolution a whole block's interior is too much to hold at once, so its parts are recomputed singly.
        images = self.blocks[-1](images, skips[-1], recompute=recompute)
        return self.head(images)
