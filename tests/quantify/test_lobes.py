"""Lobe volumes by hand, and lobes that run out of the field of view."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from m2unet.errors import M2UNetError
from m2unet.quantify.lobes import GROUPS, bounding_box, count_codes, find_cuts, lobe_volumes

SPACING = (5.0, 2.0, 1.0)  # a voxel holds 0.01 ml


def boxes(shape: tuple[int, int, int] = (12, 20, 30)) -> NDArray[np.uint8]:
    """Five boxes well inside the array: the right lung at low x, the left at high x."""
    mask = np.zeros(shape, np.uint8)
    mask[7:10, 5:15, 3:13] = 1
    mask[5:7, 5:10, 3:13] = 2
    mask[2:5, 5:15, 3:13] = 3
    mask[6:10, 5:15, 17:27] = 4
    mask[2:6, 5:15, 17:27] = 5
    return mask


def test_volumes_by_hand() -> None:
    mask = boxes()
    found = lobe_volumes(mask, 0.01, find_cuts(mask, SPACING))
    millilitres = {name: quantity.volume_ml for name, quantity in found.items()}
    assert millilitres == pytest.approx(
        {"RUL": 3, "RML": 1, "RLL": 3, "LUL": 4, "LLL": 4, "right": 7, "left": 8, "lungs": 15}
    )
    assert tuple(found) == tuple(GROUPS)
    assert not any(q.partial or q.cut or q.reason for q in found.values())
    json.dumps({name: q.to_dict() for name, q in found.items()}, allow_nan=False)


def test_an_absent_lobe_is_none_and_its_lung_partial() -> None:
    mask = boxes()
    mask[mask == 2] = 0
    mask[mask >= 4] = 0
    found = lobe_volumes(mask, 0.01)
    assert found["RML"].volume_ml is None and "absent" in str(found["RML"].reason)
    assert found["right"].volume_ml == pytest.approx(6) and found["right"].partial
    assert found["right"].reason == "RML absent from the mask"
    assert found["left"].volume_ml is None and found["left"].reason == "no lobe of it is in the mask"
    assert found["lungs"].reason == "RML and LUL and LLL absent from the mask"
    assert found["RUL"].partial is False and found["RUL"].reason is None


def test_airway_counts_for_no_lung() -> None:
    mask = boxes()
    mask[6:10, 8:10, 14:16] = 6
    assert lobe_volumes(mask, 0.01)["lungs"].volume_ml == pytest.approx(15)


@pytest.mark.parametrize(
    ("lobe", "window", "edge"),
    [
        (1, np.s_[:10], "head end"),
        (3, np.s_[2:], "feet end"),
        (2, np.s_[:, 5:], "front edge"),
        (5, np.s_[:, :15], "back edge"),
        (1, np.s_[:, :, 3:], "right edge"),
        (4, np.s_[:, :, :27], "left edge"),
    ],
)
def test_a_lobe_on_an_edge_is_cut_there(lobe: int, window: tuple[slice, ...], edge: str) -> None:
    cuts = find_cuts(boxes()[window], SPACING)
    assert edge in cuts[lobe]
    quantity = lobe_volumes(boxes()[window], 0.01, cuts)
    assert quantity["lungs"].partial and edge in quantity["lungs"].cut
    assert f"runs out of the field of view at the {edge}" in str(quantity["lungs"].reason)


def test_a_grazing_contact_is_no_cut() -> None:
    mask = boxes()
    mask[-1, 8:10, 5:10] = 1  # 10 voxels of 2 mm2 on the last slice
    assert find_cuts(mask, SPACING)[1] == ()
    assert find_cuts(mask, SPACING, least_contact_mm2=20.0)[1] == ("head end",)


def test_a_circular_field_cuts_what_touches_its_padding() -> None:
    mask = boxes()
    array = np.full(mask.shape, 40, np.int16)
    array[mask > 0] = -850
    array[:, :4, :] = array[:, -4:, :] = -2048
    array[8, 8, 8] = -2048  # a spot inside the lobe is no padding
    assert find_cuts(mask, SPACING, array)[1] == ()
    array[:, :, :5] = -2048
    assert find_cuts(mask, SPACING, array)[1] == ("edge of the reconstructed field",)
    assert find_cuts(mask, SPACING, array)[4] == ()
    array[:, 0, 0] = np.arange(12)  # noise in the corner: then it is no padding
    assert find_cuts(mask, SPACING, array)[1] == ()


def test_only_present_lobes_are_looked_at() -> None:
    assert find_cuts(np.zeros((3, 4, 5), np.uint8), SPACING) == {}


def test_bad_input_is_refused() -> None:
    mask = boxes()
    with pytest.raises(M2UNetError, match="unknown code"):
        lobe_volumes(mask + 10, 0.01)
    with pytest.raises(M2UNetError, match="unknown code"):
        lobe_volumes(mask.astype(np.int16) - 1, 0.01)
    with pytest.raises(M2UNetError, match="3-D array of integer codes"):
        lobe_volumes(mask[0], 0.01)
    with pytest.raises(M2UNetError, match="3-D array of integer codes"):
        lobe_volumes(mask.astype(float), 0.01)
    with pytest.raises(M2UNetError, match="positive volume"):
        lobe_volumes(mask, 0.0)
    with pytest.raises(M2UNetError, match="image's grid"):
        find_cuts(mask, SPACING, np.zeros((3, 4, 5), np.int16))


def test_boxes_and_counts_are_those_of_scipy_and_numpy() -> None:
    mask = np.zeros((9, 8, 7), np.uint8)
    assert bounding_box(mask) is None
    mask[2:4, 5, 1:6] = 3
    mask[3, 1, 6] = 2
    assert bounding_box(mask) == ndimage.find_objects((mask > 0).astype(int))[0]
    assert bounding_box(mask, (1, 3, 9)) == (slice(1, 5), slice(0, 8), slice(0, 7))
    assert count_codes(mask, 5).tolist() == np.bincount(mask.ravel(), minlength=5).tolist()
    assert count_codes(mask, 3).tolist() == np.bincount(mask.ravel()).tolist()[:3]  # code 3 is not asked for


@pytest.mark.parametrize(("hu", "cut"), [(-850, True), (-300, True), (40, True), (-100, False), (-1000, False)])
def test_only_lung_is_cut_off_by_the_field_of_view(hu: int, cut: bool) -> None:
    """A mask that reaches the last slice in fat, or in the airway's gas, has no lung cut there; dense lung has."""
    mask = np.zeros((10, 40, 40), np.uint8)
    mask[4:, 10:30, 10:30] = 1
    array = np.full(mask.shape, 40, np.int16)
    array[mask > 0] = -850
    array[-1][mask[-1] > 0] = hu
    noisy = (array + np.random.default_rng(0).normal(0, 20, array.shape)).astype(np.int16)
    assert find_cuts(mask, (2.0, 1.0, 1.0), noisy)[1] == (("head end",) if cut else ())
    assert find_cuts(mask, (2.0, 1.0, 1.0))[1] == ("head end",)  # without the image nobody can tell
