"""Tidying lobe masks, on shapes worked out by hand and against SciPy's components."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label

from m2unet.errors import M2UNetError
from m2unet.inference.postprocess import PostprocessConfig, postprocess_lobes

ML = 0.002


def two_lobes() -> np.ndarray:
    """Lobe 1 above lobe 3, both 8 x 10 x 10, in a larger scan."""
    mask = np.zeros((24, 20, 20), np.uint8)
    mask[12:20, 5:15, 5:15] = 1
    mask[4:12, 5:15, 5:15] = 3
    return mask


def test_a_clean_mask_stays_and_is_not_touched_in_place() -> None:
    mask = two_lobes()
    kept = mask.copy()
    found = postprocess_lobes(mask, ML)
    np.testing.assert_array_equal(found.mask, mask)
    assert found.mask is not mask and not np.shares_memory(found.mask, mask)
    np.testing.assert_array_equal(mask, kept)
    assert [step.voxels for step in found.steps] == [0, 0, 0]
    assert [step.name for step in found.steps] == ["islands-reassigned", "islands-removed", "holes-filled"]


def test_an_island_inside_another_lobe_becomes_that_lobe() -> None:
    mask = two_lobes()
    mask[6:8, 8:10, 8:10] = 1  # eight voxels of lobe 1 inside lobe 3
    found = postprocess_lobes(mask, ML)
    np.testing.assert_array_equal(found.mask, two_lobes())
    step = found.steps[0]
    assert (step.name, step.pieces, step.voxels) == ("islands-reassigned", 1, 8)
    assert step.ml == pytest.approx(8 * ML)
    assert step.change_ml == pytest.approx({"RUL": -8 * ML, "RLL": 8 * ML})


def test_an_island_on_its_own_is_removed() -> None:
    mask = two_lobes()
    mask[22, 18, 18] = 5
    mask[22, 1, 1:3] = 1
    found = postprocess_lobes(mask, ML)
    expected = two_lobes()
    expected[22, 18, 18] = 5  # the only voxel of its lobe: no lobe ever disappears
    np.testing.assert_array_equal(found.mask, expected)
    assert found.steps[1].voxels == 2 and found.steps[1].change_ml == pytest.approx({"RUL": -2 * ML})


def test_an_island_that_barely_touches_is_removed() -> None:
    mask = two_lobes()
    mask[6, 15:19, 8] = 1  # a rod of 18 faces, one of them on lobe 3
    assert not postprocess_lobes(mask, ML).mask[6, 15:19, 8].any()
    loose = postprocess_lobes(mask, ML, PostprocessConfig(reassign_contact=0.05))
    assert (loose.mask[6, 15:19, 8] == 3).all()


def test_a_lobe_cut_in_two_keeps_both_halves_unless_told_otherwise() -> None:
    mask = two_lobes()
    mask[15:17] = 0  # consolidation that was missed: 300 and 300 voxels are left
    mask[17:20, 5:15, 5:8] = 0
    kept = postprocess_lobes(mask, ML, PostprocessConfig(fill_holes=False)).mask
    np.testing.assert_array_equal(kept, mask)
    strict = postprocess_lobes(mask, ML, PostprocessConfig(keep_share=1.0)).mask
    assert (strict == 1).sum() == 300 and not strict[17:20].any()


def test_holes_are_filled_with_the_lobe_around_them() -> None:
    mask = two_lobes()
    mask[7:9, 8:10, 8:10] = 0
    mask[15, 5:8, 8] = 0  # open to the outside: no hole
    found = postprocess_lobes(mask, ML)
    assert (found.mask[7:9, 8:10, 8:10] == 3).all() and not found.mask[15, 5:8, 8].any()
    assert (found.steps[2].pieces, found.steps[2].voxels) == (1, 8)
    assert found.steps[2].change_ml == pytest.approx({"RLL": 8 * ML})
    off = postprocess_lobes(mask, ML, PostprocessConfig(fill_holes=False))
    np.testing.assert_array_equal(off.mask, mask)
    assert [step.name for step in off.steps] == ["islands-reassigned", "islands-removed"]


def test_a_gap_at_the_edge_of_the_scan_is_no_hole() -> None:
    mask = np.full((6, 8, 8), 4, np.uint8)
    mask[0, 4, 4] = 0
    assert postprocess_lobes(mask, ML).mask[0, 4, 4] == 0


def test_the_airway_is_left_alone() -> None:
    mask = two_lobes()
    mask[6:10, 8:11, 8:11] = 6
    mask[7:9, 9, 9] = 0  # its lumen: enclosed by the airway alone
    mask[1, 1, 1] = 6
    np.testing.assert_array_equal(postprocess_lobes(mask, ML).mask, mask)


def test_every_step_can_be_left_out() -> None:
    mask = two_lobes()
    mask[6:8, 8:10, 8:10] = 1
    mask[16, 9, 9] = 0
    nothing = postprocess_lobes(mask, ML, PostprocessConfig(largest_component=False, fill_holes=False))
    assert nothing.steps == ()
    np.testing.assert_array_equal(nothing.mask, mask)
    removed = postprocess_lobes(mask, ML, PostprocessConfig(reassign_islands=False, fill_holes=False))
    assert [step.name for step in removed.steps] == ["islands-removed"]
    assert not removed.mask[6:8, 8:10, 8:10].any()


def test_an_empty_mask_stays_empty() -> None:
    found = postprocess_lobes(np.zeros((3, 4, 5), np.uint8), ML)
    assert not found.mask.any() and found.steps == ()


@pytest.mark.parametrize(
    "mask", [np.zeros((3, 3), np.uint8), np.zeros((3, 3, 3), np.int32), np.full((2, 2, 2), 7, np.uint8)]
)
def test_what_is_no_lobe_mask_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(M2UNetError, match="lobe mask"):
        postprocess_lobes(mask, ML)


def test_shares_outside_their_range_are_refused() -> None:
    with pytest.raises(M2UNetError, match="keep_share"):
        PostprocessConfig(keep_share=1.2)


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, (5, 6, 6), elements=st.integers(0, 6)))
def test_no_lobe_is_lost_and_only_islands_and_holes_change(mask: np.ndarray) -> None:
    config = PostprocessConfig(keep_share=1.0)
    found = postprocess_lobes(mask, ML, config)
    again = postprocess_lobes(mask, ML, config)
    np.testing.assert_array_equal(found.mask, again.mask)
    own = mask.copy()
    assert postprocess_lobes(own, ML, config, out=own).mask is own
    np.testing.assert_array_equal(own, found.mask)
    np.testing.assert_array_equal(found.mask == 6, mask == 6)
    for code in range(1, 6):
        parts, count = label(mask == code)
        if count:
            sizes = np.bincount(parts.ravel())[1:]
            largest = np.isin(parts, 1 + np.flatnonzero(sizes == sizes.max()))
            assert (found.mask[largest] == code).all()
        else:
            assert not (found.mask == code).any()
    changed = sum(step.voxels for step in found.steps)
    assert (found.mask != mask).sum() <= changed
    total = {code: int((found.mask == code).sum()) - int((mask == code).sum()) for code in range(1, 6)}
    names = ("RUL", "RML", "RLL", "LUL", "LLL")
    stated = [sum(step.change_ml.get(name, 0.0) for step in found.steps) / ML for name in names]
    np.testing.assert_allclose(stated, [total[code] for code in range(1, 6)], atol=1e-6)
