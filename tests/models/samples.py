"""Small networks and batches shared by the tests of the models."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from m2unet.config import ModelConfig
from m2unet.models.base import SeverityModel
from m2unet.models.batch import Batch
from m2unet.models.registry import build_model

PATCH = 32


def small_config(name: str = "m2unet", **changes: object) -> ModelConfig:
    """A network of a few thousand parameters."""
    sizes: dict[str, object] = {"width": 4, "deep_width": 10, "instance_concepts": 7, "bag_concepts": 5}
    return ModelConfig.model_validate({"name": name, **sizes, **changes})


def small_model(name: str = "m2unet", seed: int = 0, **changes: object) -> SeverityModel:
    torch.manual_seed(seed)
    return build_model(small_config(name, **changes))


def make_batch(lengths: Sequence[int], *, length: int | None = None, seed: int = 0, position: bool = False) -> Batch:
    """Bags of so many patches, padded with values that would show if they were looked at."""
    generator = torch.Generator().manual_seed(seed)
    bags, length = len(lengths), length or max(lengths)
    patches = torch.full((bags, length, 1, PATCH, PATCH), 1e6)
    where = torch.full((bags, length, 3, PATCH, PATCH), 1e6)
    mask = torch.zeros(bags, length, dtype=torch.bool)
    for bag, count in enumerate(lengths):
        patches[bag, :count] = torch.rand(count, 1, PATCH, PATCH, generator=generator)
        where[bag, :count] = torch.rand(count, 3, PATCH, PATCH, generator=generator) * 2 - 1
        mask[bag, :count] = True
    return Batch(
        patches=patches,
        mask=mask,
        position=where if position else None,
        severity=torch.arange(bags) % 2,
        lobes=torch.randint(0, 6, (bags, length, PATCH, PATCH), generator=generator),
        has_lobes=torch.ones(bags, dtype=torch.bool),
    )


def warm(model: SeverityModel, seed: int = 5) -> SeverityModel:
    """Give the running statistics and affine numbers values of their own, then leave the model in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean") or (".norm." in name and name.endswith("bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
        elif name.endswith("running_var") or (".norm." in name and name.endswith("weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.eval()
