"""Severity over seeded bags."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from m2unet.config import load_config
from m2unet.ct.prepare import prepare_volume
from m2unet.ct.volume import Volume
from m2unet.inference.severity import estimate_severity
from tests.inference.conftest import GreyNetwork

CPU = torch.device("cpu")


def test_mean_and_spread_over_seeded_bags(volume: Volume) -> None:
    config = load_config("paper", ["prepare.min_box=32", "bag.size=5", "bag.patch=16", "bag.test_bags=4"])
    scan = prepare_volume(volume, config.prepare)
    first = estimate_severity(GreyNetwork(), scan, config, seed=1, device=CPU)
    assert len(first.bags) == 4 and len(set(first.bags)) > 1
    assert first.probability == pytest.approx(np.mean(first.bags))
    assert first.spread == pytest.approx(np.std(first.bags))
    assert first == estimate_severity(GreyNetwork(), scan, config, seed=1, device=CPU)
    assert first.bags != estimate_severity(GreyNetwork(), scan, config, seed=2, device=CPU).bags


def test_one_bag_has_no_spread(volume: Volume) -> None:
    config = load_config("paper", ["prepare.min_box=32", "bag.size=1", "bag.patch=16"])
    scan = prepare_volume(volume, config.prepare)
    estimate = estimate_severity(GreyNetwork(), scan, config, seed=1, device=CPU, bags=1)
    assert estimate.spread == 0.0
    assert 0 < estimate.probability < 1
