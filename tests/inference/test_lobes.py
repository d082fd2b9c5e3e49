"""Lobes of a whole volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from m2unet.config import load_config
from m2unet.ct.prepare import prepare_volume
from m2unet.ct.volume import Volume
from m2unet.inference import lobes as lobes_module
from m2unet.inference.lobes import lobe_scores, segment_lobes, slices_to_segment
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


def test_slabs_cover_each_slice_once_whatever_their_thickness(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("paper", PLAIN)
    scan = prepare_volume(volume, config.prepare)
    whole = segment_lobes(GreyNetwork(), scan, config, device=CPU)
    monkeypatch.setattr(lobes_module, "SLAB_PIXELS", 1)
    slabs = list(lobe_scores(GreyNetwork(), scan, config, device=CPU))
    assert [slab.stop - slab.start for slab in slabs] == [1] * len(slabs)
    assert [slab.start for slab in slabs] == list(slices_to_segment(scan))
    np.testing.assert_allclose(slabs[0].scores.sum(axis=0), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(segment_lobes(GreyNetwork(), scan, config, device=CPU), whole)


def test_slices_far_from_the_lungs_are_left_out() -> None:
    config = load_config("paper", PLAIN)
    volume = chest((60, 60, 80), (5.0, 3.0, 3.0))
    scan = prepare_volume(volume, config.prepare)
    wanted = slices_to_segment(scan)
    held = np.flatnonzero((truth(volume) > 0).any(axis=(1, 2)))
    assert wanted.start <= held[0] and wanted.stop > held[-1]
    scan.references["lungs"] = None
    assert slices_to_segment(scan) == range(60)


def test_position_channels_reach_the_network(volume: Volume) -> None:
    config = load_config("paper", [*PLAIN, "model.position=true", "bag.position=body"])
    scan = prepare_volume(volume, config.prepare)
    network = GreyNetwork()
    segment_lobes(network, scan, config, device=CPU)
    x, y, z = network.position[0][0]
    assert bool((x[:, 1:] >= x[:, :-1]).all()) and bool((y[1:] >= y[:-1]).all())
    assert torch.unique(z).numel() == 1
    assert float(network.position[-1][-1, 2].mean()) > float(z.mean())
