"""Pieces found a slab at a time, against SciPy on the whole."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import label

from m2unet.quantify import pieces as module
from m2unet.quantify.boxes import Part, code_boxes, union_box
from m2unet.quantify.pieces import find_pieces


@pytest.mark.parametrize("slab", [1, 2 * 30 * 20, 7 * 30 * 20, 1 << 21])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.32, 0.6, 1.0])
def test_the_pieces_are_scipys(slab: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLAB_VOXELS", slab)
    mask = np.random.default_rng(3).random((17, 30, 20)) < share
    expected, count = label(mask)
    found = find_pieces(lambda span: mask[span], (17, 30, 20))
    np.testing.assert_array_equal(found.sizes[1:], np.bincount(expected.ravel(), minlength=count + 1)[1:])
    edge = np.concatenate([expected[:, [0, -1]].ravel(), expected[:, :, [0, -1]].ravel()])
    assert set(np.flatnonzero(found.on_edge)) == set(np.unique(edge)) - {0}
    chosen = found.sizes >= 3
    where, numbers = found.pick(chosen)
    wanted = np.where(np.isin(expected, np.flatnonzero(chosen[1:]) + 1), expected, 0)
    np.testing.assert_array_equal(where, np.flatnonzero(wanted))
    np.testing.assert_array_equal(numbers, wanted.ravel()[where])


def test_a_snake_through_all_slabs_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLAB_VOXELS", 1)
    mask = np.zeros((6, 5, 5), np.bool_)
    mask[:, 1, 1] = mask[:, 3, 3] = True
    mask[0, 1, 1:4] = mask[0, 1:4, 3] = True  # the two columns meet in the first slice only
    assert find_pieces(lambda span: mask[span], (6, 5, 5)).sizes.tolist()[1:] == [int(mask.sum())]


def part_and_mask() -> tuple[Part, NDArray[np.bool_]]:
    mask = np.random.default_rng(0).random((6, 7, 8)) < 0.1
    mask[:2] = False
    return Part.of(mask), mask


def test_a_part_is_its_mask() -> None:
    part, mask = part_and_mask()
    np.testing.assert_array_equal(part.whole(), mask)
    assert not Part.of(np.zeros((2, 3, 4), np.bool_)).whole().any()


@pytest.mark.parametrize("box", [(0, 6, 0, 7, 0, 8), (3, 5, 2, 4, 5, 8), (0, 2, 0, 7, 0, 8)])
def test_a_part_is_taken_from_a_box(box: tuple[int, ...]) -> None:
    part, mask = part_and_mask()
    place = (slice(*box[:2]), slice(*box[2:4]), slice(*box[4:]))
    held = np.ones((6, 7, 8), np.bool_)[place]
    part.take_from(held, place)
    np.testing.assert_array_equal(held, ~mask[place])


def test_boxes_of_codes() -> None:
    codes = np.zeros((5, 6, 7), np.uint8)
    codes[1, 2, 3] = 2
    codes[3:, 1:3, 6] = 6
    boxes = code_boxes(codes)
    assert boxes == {
        2: (slice(1, 2), slice(2, 3), slice(3, 4)),
        6: (slice(3, 5), slice(1, 3), slice(6, 7)),
    }
    assert union_box(boxes.values()) == (slice(1, 5), slice(1, 3), slice(3, 7))
    assert union_box([]) is None
