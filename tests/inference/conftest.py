"""A hand-made chest and a network whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from m2unet.ct.volume import Volume, from_source
from m2unet.models.batch import Batch, ModelOutput


def chest(shape: tuple[int, int, int] = (12, 60, 80), spacing: tuple[float, float, float] = (5.0, 3.0, 3.0)) -> Volume:
    """An elliptic body of soft tissue with two lungs of different grey."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    array = np.full(shape, -1000, dtype=np.int16)
    array[(x / 0.9) ** 2 + (y / 0.85) ** 2 < 1] = 40
    for side, grey in ((-1, -850), (1, -700)):
        array[((x - side * 0.42) / 0.3) ** 2 + (y / 0.6) ** 2 + (z / 0.8) ** 2 < 1] = grey
    return from_source(array, spacing)


@pytest.fixture
def volume() -> Volume:
    """The chest."""
    return chest()


@dataclass
class GreyNetwork:
    """Calls a pixel RUL where it is darker than -780 HU, LUL where it is lung but brighter, else background."""

    tasks: frozenset[str] = frozenset({"lobes", "severity"})
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    position: list[Tensor] = field(default_factory=list)
    brightest: int = -500

    def segment(self, images: Tensor) -> Tensor:
        """Logits from the grey value alone."""
        self.sizes.append(tuple(images.shape))
        if images.shape[1] == 4:
            self.position.append(images[:, 1:])
        hu = images[:, 0] * 1200 - 1200
        logits = torch.zeros(len(images), 6, *images.shape[2:])
        logits[:, 1] = 20.0 * ((hu > -900) & (hu < -780))
        logits[:, 4] = 20.0 * ((hu >= -780) & (hu < self.brightest))
        logits[:, 0] = 10.0
        return logits

    def __call__(self, batch: Batch, lobes_for: Tensor | None = None) -> ModelOutput:
        """Severity logit is the mean grey of the bag."""
        mean = batch.patches[batch.mask].mean()
        return ModelOutput(severity=torch.stack([torch.zeros(()), mean]).unsqueeze(0))
