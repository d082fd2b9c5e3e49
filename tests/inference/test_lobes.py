"""Lobes of a whole volume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from m2unet.config import load_config
from m2unet.ct.prepare import prepare_volume
from m2unet.ct.volume import Volume, from_source
from m2unet.inference import lobes as lobes_module
from m2unet.inference.lobes import segment_lobes
from tests.inference.conftest import GreyNetwork, chest

CPU = torch.device("cpu")
PLAIN = ["prepare.min_box=32", "model.classes=6"]


def truth(volume: Volume) -> np.ndarray:
    expected = np.zeros(volume.shape, dtype=np.uint8)
    expected[volume.array == -850] = 1
    expected[volume.array == -700] = 4
    return expected


def test_the_mask_is_what_the_network_sees_on_the_volumes_grid(volume: Volume) -> None:
    config = load_config("paper", PLAIN)
    network = GreyNetwork()
    mask = segment_lobes(network, prepare_volume(volume, config.prepare), config, device=CPU)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, truth(volume))
    assert all(size[2] % 16 == 0 and size[3] % 16 == 0 for size in network.sizes)


def test_resampled_slices_come_back_to_the_volumes_resolution() -> None:
    volume = chest((8, 120, 160), (5.0, 1.5, 1.5))
    config = load_config("paper", [*PLAIN, "prepare.inplane_mm=3.0"])
    mask = segment_lobes(GreyNetwork(), prepare_volume(volume, config.prepare), config, device=CPU)
    expected = truth(volume)
    for code in (1, 4):
        overlap = 2 * ((mask == code) & (expected == code)).sum() / ((mask == code).sum() + (expected == code).sum())
        assert overlap > 0.9


def test_each_slice_is_computed_once_whatever_the_batch(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("paper", PLAIN)
    scan = prepare_volume(volume, config.prepare)
    whole = segment_lobes(GreyNetwork(), scan, config, device=CPU)
    monkeypatch.setattr(lobes_module, "BATCH_PIXELS", 1)
    network = GreyNetwork()
    np.testing.assert_array_equal(segment_lobes(network, scan, config, device=CPU), whole)
    assert {size[0] for size in network.sizes} == {1}
    assert len(network.sizes) <= volume.shape[0]


def test_what_the_network_holds_does_not_grow_with_the_slices() -> None:
    config = load_config("paper", PLAIN)
    largest = []
    for slices in (100, 300):
        network = GreyNetwork()
        volume = chest((slices, 120, 160), (1.0, 2.0, 2.0))
        segment_lobes(network, prepare_volume(volume, config.prepare), config, device=CPU)
        largest.append(max(n * h * w for n, _, h, w in network.sizes))
        assert sum(n for n, *_ in network.sizes) > slices / 2
    assert max(largest) <= lobes_module.BATCH_PIXELS
    assert largest[1] < 1.3 * largest[0]  # three times the slices; boxes are rounded to 16 pixels


def test_only_the_lungs_surroundings_are_computed() -> None:
    config = load_config("paper", [*PLAIN, "prepare.min_box=192"])
    volume = chest((60, 160, 240), (3.0, 2.0, 2.0))
    scan = prepare_volume(volume, config.prepare)
    network = GreyNetwork()
    mask = segment_lobes(network, scan, config, device=CPU)
    np.testing.assert_array_equal(mask, truth(volume))
    computed = sum(n * h * w for n, _, h, w in network.sizes)
    assert computed < 0.7 * scan.array.size


def test_regions_grow_where_lobes_reach_beyond_the_air() -> None:
    """Dense lung is not found coarsely: the network's own lobes at the edge of a region call for more."""
    config = load_config("paper", [*PLAIN, "prepare.min_box=128"])
    volume = chest((60, 160, 240), (3.0, 2.0, 2.0))
    dense = volume.array.copy()
    lower = np.zeros(volume.shape, dtype=bool)
    lower[:30, 80:] = True  # the back of the lower half is consolidated: brighter than air, yet lung to the network
    dense[lower & (truth(volume) > 0)] = -100
    consolidated = from_source(dense, volume.spacing_mm)
    scan = prepare_volume(consolidated, config.prepare)
    network = GreyNetwork(brightest=-50)
    mask = segment_lobes(network, scan, config, device=CPU)
    np.testing.assert_array_equal(mask > 0, truth(volume) > 0)


def test_without_lungs_everything_is_computed(volume: Volume) -> None:
    config = load_config("paper", PLAIN)
    scan = replace(prepare_volume(volume, config.prepare), lung_boxes=None)
    network = GreyNetwork()
    np.testing.assert_array_equal(segment_lobes(network, scan, config, device=CPU), truth(volume))
    assert sum(size[0] for size in network.sizes) == volume.shape[0]


def test_position_channels_reach_the_network(volume: Volume) -> None:
    config = load_config("paper", [*PLAIN, "model.position=true", "bag.position=body"])
    scan = prepare_volume(volume, config.prepare)
    network = GreyNetwork()
    segment_lobes(network, scan, config, device=CPU)
    x, y, z = network.position[0][0]
    assert bool((x[:, 1:] >= x[:, :-1]).all()) and bool((y[1:] >= y[:-1]).all())
    assert torch.unique(z).numel() == 1
    assert float(network.position[-1][-1, 2].mean()) > float(z.mean())
