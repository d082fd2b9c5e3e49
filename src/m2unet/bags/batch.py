"""Several bags become one batch of tensors: windowed, padded to the largest bag, masked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from m2unet.anatomy import AIRWAY, BACKGROUND
from m2unet.bags.bag import Bag
from m2unet.bags.position import position_channels
from m2unet.config import WindowConfig
from m2unet.ct.window import apply_window
from m2unet.errors import ConfigError
from m2unet.models.batch import Batch


def make_batch(bags: Sequence[Bag], window: WindowConfig, *, position: bool, classes: int = 7) -> Batch:
    """Pad, window and stack bags.

    Args:
        bags: at least one, all with patches of one size; their numbers of patches may differ.
        window: grey window.
        position: whether to make position channels; every bag then needs a reference box.
        classes: of the lobe mask; below 7 the airway becomes background.

    Returns:
        The batch on the CPU. Padding is zero everywhere and False in ``mask``.

    Raises:
        ValueError: if there is no bag, an empty bag, or patches of different sizes.
        ConfigError: if position is asked for and a bag has no reference box.
    """
    sizes = {bag.patches.shape[1:] for bag in bags}
    if len(sizes) != 1 or not all(len(bag) for bag in bags):
        raise ValueError(f"a batch needs non-empty bags with patches of one size, got sizes {sorted(sizes)}")
    height, width = sizes.pop()
    count, most = len(bags), max(len(bag) for bag in bags)
    has_lobes = torch.tensor([bag.lobes is not None for bag in bags])
    patches = torch.zeros(count, most, 1, height, width)
    mask = torch.zeros(count, most, dtype=torch.bool)
    lobes = torch.zeros(count, most, height, width, dtype=torch.int64) if bool(has_lobes.any()) else None
    places = torch.zeros(count, most, 3, height, width) if position else None
    for index, bag in enumerate(bags):
        n = len(bag)
        mask[index, :n] = True
        patches[index, :n, 0] = torch.from_numpy(apply_window(bag.patches, window))
        if lobes is not None and bag.lobes is not None:
            lobes[index, :n] = _codes(bag.lobes, classes)
        if places is not None:
            places[index, :n] = _places(bag, height, width)
    severity = torch.tensor([bag.severity for bag in bags], dtype=torch.int64)
    return Batch(patches=patches, mask=mask, position=places, severity=severity, lobes=lobes, has_lobes=has_lobes)


def _codes(lobes: np.ndarray, classes: int) -> Tensor:
    codes = torch.from_numpy(lobes)
    return codes if classes > AIRWAY else codes.masked_fill(codes == AIRWAY, BACKGROUND)


def _places(bag: Bag, height: int, width: int) -> Tensor:
    if bag.reference is None:
        raise ConfigError(
            "The model takes position channels but the bag has no reference box",
            found="bag.position=none",
            expected="bag.position=body or bag.position=lungs",
        )
    return position_channels(bag.corners, bag.reference, height, width)
