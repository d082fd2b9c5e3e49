"""Batches: windowed, padded, masked, labelled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from m2unet.bags.bag import Bag
from m2unet.bags.batch import make_batch
from m2unet.bags.position import position_channels
from m2unet.bags.sampling import draw_bag
from m2unet.config import BagConfig, WindowConfig
from m2unet.errors import ConfigError
from tests.bags.conftest import MemoryScan

WINDOW = WindowConfig()


def bag(scan: MemoryScan, size: int, seed: int = 0) -> Bag:
    return draw_bag(scan, BagConfig(size=size, patch=16, position="lungs"), np.random.default_rng(seed))


def test_bags_of_unequal_size_are_padded_and_masked(scan: MemoryScan) -> None:
    bags = [bag(scan, 5), replace(bag(scan, 2, 1), severity=0), replace(bag(scan, 1, 2), severity=-1)]
    batch = make_batch(bags, WINDOW, position=True)
    assert batch.patches.shape == (3, 5, 1, 16, 16) and batch.patches.dtype == torch.float32
    assert batch.mask.tolist() == [[True] * 5, [True] * 2 + [False] * 3, [True] + [False] * 4]
    assert batch.severity.tolist() == [1, 0, -1] and batch.severity.dtype == torch.int64
    assert batch.lobes is not None and batch.lobes.dtype == torch.int64 and batch.lobes.shape == (3, 5, 16, 16)
    assert batch.position is not None and batch.position.shape == (3, 5, 3, 16, 16)
    for index, one in enumerate(bags):
        n = len(one)
        grey = (np.clip(one.patches, -1200, 0) + 1200.0) / 1200.0
        assert np.allclose(batch.patches[index, :n, 0].numpy(), grey, atol=1e-6)
        assert np.array_equal(batch.lobes[index, :n].numpy(), one.lobes)  # type: ignore[arg-type]
        assert one.reference is not None
        assert torch.equal(batch.position[index, :n], position_channels(one.corners, one.reference, 16, 16))
        assert not batch.patches[index, n:].any() and not batch.lobes[index, n:].any()
        assert not batch.position[index, n:].any()
    assert batch.inputs(position=True).shape == (8, 4, 16, 16)


def test_lobes_of_some_of_none(scan: MemoryScan) -> None:
    with_mask, without = bag(scan, 2), replace(bag(scan, 2), lobes=None)
    batch = make_batch([without, with_mask], WINDOW, position=False)
    assert batch.has_lobes.tolist() == [False, True] and batch.position is None
    assert batch.lobes is not None and not batch.lobes[0].any() and batch.lobes[1].any()
    batch = make_batch([without, without], WINDOW, position=False)
    assert batch.lobes is None and batch.has_lobes.tolist() == [False, False]


def test_the_airway_is_background_to_a_model_of_six_classes(scan: MemoryScan) -> None:
    one = bag(scan, 3)
    assert one.lobes is not None and 6 in one.lobes
    seven, six = (make_batch([one], WINDOW, position=False, classes=c).lobes for c in (7, 6))
    assert seven is not None and six is not None
    assert np.array_equal(seven[0].numpy(), one.lobes)
    assert np.array_equal(six[0].numpy(), np.where(one.lobes == 6, 0, one.lobes))
    assert 6 in one.lobes  # the bag itself stays as it was


def test_a_bag_of_one_patch(scan: MemoryScan) -> None:
    batch = make_batch([bag(scan, 1)], WINDOW, position=True, classes=6)
    assert batch.bags == 1 and batch.mask.all() and batch.patches.shape == (1, 1, 1, 16, 16)


def test_position_needs_a_reference(scan: MemoryScan) -> None:
    with pytest.raises(ConfigError, match=r"bag\.position"):
        make_batch([replace(bag(scan, 1), reference=None)], WINDOW, position=True)


def test_what_cannot_be_stacked(scan: MemoryScan) -> None:
    larger = draw_bag(scan, BagConfig(size=1, patch=32), np.random.default_rng(0))
    empty = Bag("s", np.empty((0, 16, 16), np.int16), None, np.empty((0, 3), np.int32), None, 0)
    for bags in ([], [bag(scan, 1), larger], [empty]):
        with pytest.raises(ValueError, match="a batch needs"):
            make_batch(bags, WINDOW, position=False)
