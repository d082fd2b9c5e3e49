"""Batches of invented slices: batch *i* of a seed is always the same, however many processes draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from m2unet.config import WindowConfig
from m2unet.phantom.randomised.pool import ChestPool
from m2unet.phantom.randomised.samples import Knobs, Samples, draw_samples


@dataclass(frozen=True)
class SlabBatch:
    """Slices of some slabs.

    Attributes:
        images: ``[N, slices, H, W]`` scaled slices with their neighbours, channels last.
        labels: ``[N, H, W]`` int64 lobe codes.
        heights: ``[N]``, -1 at the lungs' base, 1 at the apex.
        fissures: ``[N, H, W]`` bool; None where nobody knows.
    """

    images: Tensor
    labels: Tensor
    heights: Tensor
    fissures: Tensor | None

    @classmethod
    def of(cls, drawn: Sequence[Samples]) -> SlabBatch:
        """All samples in one batch."""
        images = torch.from_numpy(np.concatenate([s.images for s in drawn]))
        labels = torch.from_numpy(np.concatenate([s.labels for s in drawn])).long()
        heights = torch.from_numpy(np.concatenate([s.heights for s in drawn]))
        known = [s.fissures for s in drawn if s.fissures is not None]
        fissures = torch.from_numpy(np.concatenate(known)) if len(known) == len(drawn) else None
        return cls(images.contiguous(memory_format=torch.channels_last), labels, heights, fissures)

    def to(self, device: torch.device) -> SlabBatch:
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> SlabBatch:
        """The same in page-locked memory; torch's loader calls this."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> SlabBatch:
        fissures = None if self.fissures is None else change(self.fissures)
        return SlabBatch(change(self.images), change(self.labels), change(self.heights), fissures)


class _Slabs(Dataset[Samples]):
    """Every slab of a seed, drawn when asked for."""

    def __init__(self, pool: ChestPool, seed: int, window: WindowConfig, knobs: Knobs | None, context: int) -> None:
        self.pool, self.seed, self.window, self.knobs, self.context = pool, seed, window, knobs, context

    def __getitem__(self, number: int) -> Samples:
        return draw_samples(self.pool, self.seed, number, self.window, self.knobs, context=self.context)


@dataclass(frozen=True)
class SlabSource:
    """Where slabs come from.

    Attributes:
        pool: the chests.
        seed: all chance.
        window: of the network.
        knobs: what is drawn; the defaults if None.
        context: neighbours on each side.
        workers: processes that draw; with 0 the calling one does.
    """

    pool: ChestPool
    seed: int
    window: WindowConfig
    knobs: Knobs | None
    context: int
    workers: int = 0

    def batches(self, steps: range, slabs: int, *, pin: bool = False) -> DataLoader[Any]:
        """A :class:`SlabBatch` for each step.

        Args:
            steps: of the training; step *i* holds slabs ``i * slabs`` and the following.
            slabs: of a batch.
            pin: page-locked memory, for a GPU.
        """
        return DataLoader(
            _Slabs(self.pool, self.seed, self.window, self.knobs, self.context),
            batch_sampler=[list(range(step * slabs, (step + 1) * slabs)) for step in steps],
            collate_fn=SlabBatch.of,
            num_workers=self.workers,
            prefetch_factor=2 if self.workers else None,
            pin_memory=pin,
        )
