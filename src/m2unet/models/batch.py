"""What goes into a model and what comes out of it: plain tensors, no files, no NumPy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Several bags, padded to the largest, with a mask.

    Attributes:
        patches: ``[B, n, 1, H, W]`` float32 in the network's input range (0 = air end of the window).
        mask: ``[B, n]`` bool, True where an instance is real. Padding counts neither for statistics nor for maxima.
        position: ``[B, n, 3, H, W]`` float32, each pixel's (x, y, z) in the reference box, -1 to 1 inside; or None.
        severity: ``[B]`` int64, 1 severe, 0 non-severe, -1 unknown.
        lobes: ``[B, n, H, W]`` int64 lobe codes, or None if no bag of the batch has a mask.
        has_lobes: ``[B]`` bool, which bags have a lobe mask.
    """

    patches: Tensor
    mask: Tensor
    position: Tensor | None
    severity: Tensor
    lobes: Tensor | None
    has_lobes: Tensor

    @property
    def bags(self) -> int:
        """Number of bags B."""
        return self.patches.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=non_blocking)

        changed: dict[str, Any] = {name: move(getattr(self, name)) for name in self.__dataclass_fields__}
        return replace(self, **changed)

    def inputs(self, *, position: bool) -> Tensor:
        """The real instances of all bags in order, ``[N, 1 or 4, H, W]``.

        Raises:
            ValueError: if position channels are asked for and the batch has none.
        """
        images = self.patches[self.mask]
        if not position:
            return images
        if self.position is None:
            raise ValueError("the model takes position channels but the batch has none")
        return torch.cat([images, self.position[self.mask]], dim=1)


@dataclass(frozen=True)
class ModelOutput:
    """What a model says of a batch. A part that was not asked for, or that the model lacks, is None.

    Attributes:
        severity: ``[B, 2]`` logits (non-severe, severe).
        lobes: ``[M, c, H, W]`` logits of the M real instances of the bags in ``lobe_bags``, in order.
        lobe_bags: ``[B]`` bool, the bags whose lobes were computed.
        embedding: ``[B, d]`` the bag's embedding just before the classifier.
        image_winners: ``[B, q]`` int64, which instance of the bag won each image-level concept.
        position_winners: ``[B, n, p]`` int64, which feature position (row-major) of each instance won each
            embedding-level concept; -1 where masked.
        attention: ``[B, n]`` instance weights or scores of methods that have them (gated attention, max); 0 where
            masked.
        instance_severity: ``[B, n, 2]`` logits of each instance by itself, of methods that judge instances one by one
            and are trained that way; 0 where masked.
        signature: ``[B, 2k]`` mean and standard deviation, over the bag's instances, of the mean over positions of each
            channel of the encoder at several depths: what the encoder saw, before anything is pooled away. Unusual
            scans are told by it. In evaluation mode only.
    """

    severity: Tensor | None = None
    lobes: Tensor | None = None
    lobe_bags: Tensor | None = None
    embedding: Tensor | None = None
    image_winners: Tensor | None = None
    position_winners: Tensor | None = None
    attention: Tensor | None = None
    instance_severity: Tensor | None = None
    signature: Tensor | None = None
