"""The airway from a mask and from the image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from m2unet.errors import M2UNetError
from m2unet.quantify.airways import find_airways, near_airway

from .conftest import Chest


def test_the_trachea_is_found_between_the_lungs(healthy: Chest) -> None:
    found = find_airways(healthy.array, healthy.lobes, healthy.spacing_mm)
    assert found.source == "image" and found.reason is None
    true_ml = np.pi * 9**2 * 27 * 4.0 / 1000  # radius 9 mm, 27 slices above z = -20 mm; the blurred rim is no air
    assert found.volume_ml is not None and 0.7 * true_ml < found.volume_ml < true_ml
    assert not (found.mask & (healthy.lobes > 0)).any()


def test_the_masks_own_airway_wins(healthy: Chest) -> None:
    lobes = healthy.lobes.copy()
    lobes[20, 50:60, 80:90] = 6
    found = find_airways(healthy.array, lobes, healthy.spacing_mm)
    assert found.source == "mask"
    assert found.volume_ml == pytest.approx(100 * np.prod(healthy.spacing_mm) / 1000)


def test_when_there_is_none_there_is_a_reason(healthy: Chest) -> None:
    one_lung = np.where(healthy.lobes <= 3, healthy.lobes, 0).astype(np.uint8)
    missing = find_airways(healthy.array, one_lung, healthy.spacing_mm)
    assert missing.volume_ml is None and "two lungs" in str(missing.reason) and not missing.mask.any()
    assert not near_airway(missing, healthy.spacing_mm, 2.0).whole().any()
    filled = np.where(healthy.lobes > 0, healthy.array, 40).astype(np.int16)
    assert "no piece of air" in str(find_airways(filled, healthy.lobes, healthy.spacing_mm).reason)
    elsewhere = filled.copy()
    elsewhere[10:30, 52:58, 3:9] = -1000  # a pocket beside the right lung
    assert find_airways(elsewhere, healthy.lobes, healthy.spacing_mm).volume_ml is None
    with pytest.raises(M2UNetError, match="image's grid"):
        find_airways(healthy.array[1:], healthy.lobes, healthy.spacing_mm)


def test_the_margin_is_in_millimetres(healthy: Chest) -> None:
    lobes = np.zeros_like(healthy.lobes)
    lobes[20, 50, 80] = 6
    found = find_airways(healthy.array, lobes, healthy.spacing_mm)
    assert near_airway(found, healthy.spacing_mm, 0).whole().sum() == 1
    assert near_airway(found, healthy.spacing_mm, 1.7).whole().sum() == 5  # four neighbours in plane at 1.6 mm
    assert near_airway(found, healthy.spacing_mm, 4.1).whole()[19, 50, 80]


def test_the_margin_is_that_of_a_distance_map(healthy: Chest) -> None:
    rng = np.random.default_rng(5)
    lobes = np.zeros_like(healthy.lobes)
    lobes[tuple(rng.integers(0, side, 40) for side in lobes.shape)] = 6  # to the very corners
    lobes[0, 0, 0] = 6
    found = find_airways(healthy.array, lobes, healthy.spacing_mm)
    expected = ndimage.distance_transform_edt(lobes != 6, sampling=healthy.spacing_mm) <= 5.0
    assert np.array_equal(near_airway(found, healthy.spacing_mm, 5.0).whole(), expected)
