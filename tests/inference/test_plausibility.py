"""Lobes that cannot be are marked, each kind with its figure; sound lobes and heavy disease are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from m2unet.ct.findings import QualityError
from m2unet.ct.volume import Volume, from_source
from m2unet.inference.plausibility import check_on_scan, check_prediction
from tests.ct.turned import phantom

Mask = NDArray[np.uint8]


def codes(mask: Mask, volume: Volume) -> dict[str, str]:
    found = check_prediction(mask, volume)
    assert all(f.level == "warning" and f.mend for f in found)
    return {f.code: f.found for f in found}


@pytest.fixture(scope="module")
def volume() -> Volume:
    return phantom().volume


@pytest.fixture
def lobes() -> Mask:
    return phantom().lobes.copy()


@pytest.mark.parametrize("patient", [0, 1, 2, 3])
def test_true_lobes_of_ill_phantoms_give_no_finding(patient: int) -> None:
    scan = phantom(patient, 11)
    assert check_prediction(scan.lobes, scan.volume) == ()
    assert check_on_scan(scan.lobes, scan.volume).faults == ()


def test_no_lobe_at_all_is_an_error_unless_accepted(lobes: Mask, volume: Volume) -> None:
    lobes[lobes < 6] = 0  # an airway is no lobe
    with pytest.raises(QualityError, match="lobes-absent"):
        check_prediction(lobes, volume)
    (found,) = check_prediction(lobes, volume, ["lobes-absent"])
    assert (found.code, found.level) == ("lobes-absent", "warning")


def test_a_missing_lobe_and_a_lung_next_to_gone(lobes: Mask, volume: Volume) -> None:
    without = lobes.copy()
    without[without == 2] = 1
    assert codes(without, volume) == {"lobe-missing": "RML is not there"}
    for code in (4, 5):
        at = np.argwhere(lobes == code)
        lobes[(lobes == code) & (np.arange(lobes.shape[2]) < np.quantile(at[:, 2], 0.85))] = 0
    assert "the left lung has" in codes(lobes, volume)["lobe-volume"]


def swapped(lobes: Mask) -> Mask:
    return np.array([0, 4, 4, 5, 1, 3, 6], np.uint8)[lobes]


def upside_down(lobes: Mask) -> Mask:
    return np.array([0, 3, 2, 1, 5, 4, 6], np.uint8)[lobes]


def in_two_pieces(lobes: Mask) -> Mask:
    lobes[(lobes == 5) & (np.arange(len(lobes)) % 9 == 4)[:, None, None]] = 0
    return lobes


def in_one_lobe(lobes: Mask) -> Mask:
    lobes[(lobes > 0) & (lobes < 6)] = 2
    return lobes


@pytest.mark.parametrize(
    ("change", "code", "figure"),
    [
        (swapped, "lobe-side", "mm to the patient's left of"),
        (upside_down, "lobe-order", "the centre of RUL does not lie above that of RLL"),
        (in_two_pieces, "lobe-pieces", "ml of LLL lie apart"),
        (in_one_lobe, "lobe-volume", "RML has"),
    ],
)
def test_sides_order_pieces_and_volumes(
    lobes: Mask, volume: Volume, change: Callable[[Mask], Mask], code: str, figure: str
) -> None:
    assert figure in codes(change(lobes), volume)[code]


def test_lungs_larger_than_any_are_marked(lobes: Mask) -> None:
    scan = phantom().volume
    grown = from_source(scan.array, tuple(2 * step for step in scan.spacing_mm))  # type: ignore[arg-type]
    assert "both lungs have" in codes(lobes, grown)["lobe-volume"]


def test_a_lobe_and_a_lung_without_air(lobes: Mask, volume: Volume) -> None:
    array = volume.array.copy()
    array[lobes == 5] = 35
    said = codes(lobes, from_source(array, volume.spacing_mm))
    assert said["lobe-without-air"].startswith("LLL holds next to no air (") and "mean" in said["lobe-without-air"]
    assert set(said) == {"lobe-without-air"}  # a wholly dense lobe lies where it should
    array[lobes == 4] = 35
    assert codes(lobes, from_source(array, volume.spacing_mm))["lobe-without-air"].startswith("the left lung")


def test_lobes_in_fat_and_outside_the_body(lobes: Mask, volume: Volume) -> None:
    array = volume.array.copy()
    fat = np.zeros(lobes.shape, bool)
    z = slice(len(lobes) // 3, 2 * len(lobes) // 3)
    fat[z, 30:60, 30:60] = True
    fat &= lobes == 0
    array[fat] = -100
    lobes[fat] = 1
    said = codes(lobes, from_source(array, volume.spacing_mm))
    assert "RUL" in said["lobes-outside-lung"] and "lie in fat (mean -" in said["lobes-outside-lung"]
    lobes = phantom().lobes.copy()
    lobes[z, :14, :40] = 3
    assert "RLL lie outside the body" in codes(lobes, volume)["lobes-outside-lung"]


def test_lobes_below_the_diaphragm_and_outside_the_ribs(lobes: Mask) -> None:
    scan = phantom(2, 11)
    array = np.concatenate([np.repeat(scan.volume.array[:1], 10, axis=0), scan.volume.array])  # a longer abdomen
    mask = np.concatenate([np.zeros((10, *scan.lobes.shape[1:]), np.uint8), scan.lobes])
    volume = from_source(array, scan.volume.spacing_mm)
    assert check_prediction(mask, volume) == ()
    liver = mask.copy()
    columns = (mask == 3).any(axis=0)
    liver[2:8, columns] = 3
    assert "below the diaphragm" in codes(liver, volume)["lobes-outside-lung"]
    wide = mask.copy()
    body = ndimage.binary_fill_holes((array[20] > -300) & (np.indices(array.shape[1:])[0] < 130))
    wide[18:26, body & (np.indices(array.shape[1:])[1] < 30)] = 3
    assert "lie" in codes(wide, volume)["lobes-outside-lung"]


def test_lobes_that_leave_out_much_of_the_lung(lobes: Mask, volume: Volume) -> None:
    thinner = lobes.copy()
    inside = (lobes > 0) & (lobes < 6)
    thinner[~np.stack([ndimage.binary_erosion(plane, iterations=6) for plane in inside])] = 0
    said = codes(thinner, volume)["lobes-lung-mismatch"]
    assert said.startswith("lobes ") and "air-filled lung" in said and "leave out" in said


def test_an_excerpt_is_judged_as_one(lobes: Mask, volume: Volume) -> None:
    for part in (slice(6, 9), slice(10, 13), slice(len(lobes) // 2, None)):
        cut = from_source(volume.array[part].copy(), volume.spacing_mm)
        assert check_prediction(lobes[part].copy(), cut) == (), part


def test_masks_of_people_are_held_to_the_same_checks(lobes: Mask, volume: Volume) -> None:
    array = volume.array.copy()
    array[lobes == 3] = 35
    found = check_on_scan(lobes, from_source(array, volume.spacing_mm))
    assert [fault.code for fault in found.faults] == ["air"] and not found.usable
    assert check_on_scan(lobes, from_source(array, volume.spacing_mm), ["air"]).usable
