"""Running batch statistics, recomputed over training bags before a model is evaluated.

Exponentially averaged statistics lag behind the weights in mid-training; a cumulative average over fresh bags does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from m2unet.models.batch import Batch
from m2unet.models.norm import local_statistics


@torch.no_grad()
def refresh_statistics(model: Any, batches: Iterable[Batch], device: torch.device) -> None:
    """Replace the running statistics of every batch normalisation by their average over ``batches``.

    The model is left in the mode it was in; every process computes the same statistics for itself. The lobes of every
    bag are computed, with a mask or not, so that the decoder's statistics come from the same bags.

    Args:
        model: takes batches, see :mod:`m2unet.models`.
        batches: batches of training bags; none leaves the model as it was.
        device: where the model is.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    training = model.training
    model.train()
    first = True
    for batch in batches:
        if first:
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # cumulative average
            first = False
        wanted = torch.ones(batch.bags, dtype=torch.bool, device=device) if "lobes" in model.tasks else None
        with local_statistics():
            model(batch.to(device), lobes_for=wanted)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.train(training)
