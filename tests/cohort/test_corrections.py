"""Corrected masks: every fault is found, and a sound mask has none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from m2unet.cohort.corrections import check_corrected

from .conftest import SPACING, chest

VOXEL_ML = float(np.prod(SPACING)) / 1000


@pytest.fixture
def lobes() -> NDArray[np.uint8]:
    found = chest()[1]
    z = np.arange(len(found))[:, None, None]
    found[(found == 4) & (z < 6)] = 5  # the plain chest's left upper lobe reaches to the base
    return found


def codes(mask: NDArray[np.uint8]) -> list[str]:
    return [fault.code for fault in check_corrected(mask, SPACING, VOXEL_ML).faults]


def test_a_sound_mask_has_no_fault(lobes: NDArray[np.uint8]) -> None:
    found = check_corrected(lobes, SPACING, VOXEL_ML)
    assert found.faults == () and found.usable
    assert found.volumes_ml["RUL"] == pytest.approx((lobes == 1).sum() * VOXEL_ML)


def test_swapped_sides_are_found(lobes: NDArray[np.uint8]) -> None:
    assert "sides" in codes(np.ascontiguousarray(lobes[:, :, ::-1]))


def test_lobes_upside_down_and_back_to_front_are_found(lobes: NDArray[np.uint8]) -> None:
    swapped = np.choose(lobes, [0, 3, 2, 1, 5, 4]).astype(np.uint8)
    found = check_corrected(swapped, SPACING, VOXEL_ML).faults
    assert sum(fault.code == "order" for fault in found) >= 2
    assert "order" in codes(np.choose(lobes, [0, 1, 3, 2, 4, 5]).astype(np.uint8))


def test_a_missing_lobe_is_found_and_can_be_accepted(lobes: NDArray[np.uint8]) -> None:
    lobes[lobes == 2] = 1
    assert codes(lobes) == ["missing"]
    assert check_corrected(lobes, SPACING, VOXEL_ML, accept=["missing"]).usable
    assert not check_corrected(lobes, SPACING, VOXEL_ML, accept=["islands"]).usable


def test_islands_and_volumes_are_found_together(lobes: NDArray[np.uint8]) -> None:
    lobes[lobes == 5] = 0
    lobes[5, 40, 60] = 5  # 0.24 ml: no lobe is so small
    lobes[0, 0:9, 0:9] = 1  # 81 voxels of the upper lobe in a corner
    found = check_corrected(lobes, SPACING, VOXEL_ML)
    assert {fault.code for fault in found.faults} >= {"volume", "islands"}
    island = next(fault for fault in found.faults if fault.code == "islands")
    assert "RUL" in island.found and "slice 1 " in island.found
    assert f"{81 * VOXEL_ML:.1f} ml" in island.found


def test_a_few_loose_voxels_are_no_fault(lobes: NDArray[np.uint8]) -> None:
    lobes[0, 0, 0] = 3
    assert codes(lobes) == []


def test_volumes_that_adults_do_not_have(lobes: NDArray[np.uint8]) -> None:
    lobes[np.isin(lobes, (1, 3))] = 2
    faults = {fault.code: fault.found for fault in check_corrected(lobes, SPACING, 2 * VOXEL_ML).faults}
    assert "RML has" in faults["volume"] and "20-1500 is usual" in faults["volume"]
    for factor, litres in ((8.0, "0.5-10 l"), (0.05, "0.5-10 l")):
        found = [f.found for f in check_corrected(lobes, SPACING, VOXEL_ML * factor).faults if f.code == "volume"]
        assert any("both lungs have" in text and litres in text for text in found)


def test_a_part_of_the_lungs_may_lack_lobes_and_have_little_of_them(lobes: NDArray[np.uint8]) -> None:
    part = lobes[9:11].copy()
    assert {"missing", "volume"} & {f.code for f in check_corrected(part, SPACING, VOXEL_ML / 100).faults}
    assert check_corrected(part, SPACING, VOXEL_ML / 100, partial=True).faults == ()
