"""Position channels against hand-worked values and a scan cut into patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from m2unet.bags.position import position_channels, slice_position


def test_the_box_becomes_minus_one_to_one() -> None:
    # a box of 4 slices, 8 rows, 10 columns: voxel centres lie half a voxel inside its faces
    channels = position_channels([[0, 0, 0], [3, 0, 0]], [[0, 0, 0], [4, 8, 10]], 8, 10)
    assert channels.shape == (2, 3, 8, 10) and channels.dtype == torch.float32
    x, y, z = channels[0]
    assert x[5].tolist() == pytest.approx([-0.9, -0.7, -0.5, -0.3, -0.1, 0.1, 0.3, 0.5, 0.7, 0.9])
    assert y[:, 2].tolist() == pytest.approx([-0.875, -0.625, -0.375, -0.125, 0.125, 0.375, 0.625, 0.875])
    assert torch.equal(z, torch.full((8, 10), -0.75))
    assert torch.equal(channels[1, 2], torch.full((8, 10), 0.75))


def test_outside_the_box_positions_go_on_until_two() -> None:
    # box rows 10..20: row centre 20.5 is at 1.1, 24.5 at 1.9, 25.5 would be 2.1
    y = position_channels([[0, 20, 0]], [[0, 10, 0], [1, 20, 1]], 8, 1)[0, 1, :, 0]
    assert y.tolist() == pytest.approx([1.1, 1.3, 1.5, 1.7, 1.9, 2.0, 2.0, 2.0])
    x = position_channels([[0, 0, -30]], [[0, 0, 0], [1, 1, 10]], 1, 4)[0, 0, 0]
    assert x.tolist() == [-2.0] * 4


def test_patches_see_the_same_positions_as_whole_slices() -> None:
    reference = np.array([[1.5, 3, 2], [6, 28, 30.25]], dtype=np.float32)
    whole = slice_position(torch.arange(7), 40, 36, reference)
    assert whole.shape == (7, 3, 40, 36)
    corners = np.array([[0, 0, 0], [6, 24, 20], [3, 7, 11]], dtype=np.int32)
    for channels, (z, y, x) in zip(position_channels(corners, reference, 16, 16), corners, strict=True):
        assert torch.equal(channels, whole[z, :, y : y + 16, x : x + 16])


def test_slice_numbers_may_come_as_a_list_or_range() -> None:
    reference = [[0, 0, 0], [9, 4, 4]]
    assert torch.equal(slice_position([2, 5], 4, 4, reference), slice_position(np.array([2, 5]), 4, 4, reference))


def test_a_box_without_thickness_gives_finite_positions() -> None:
    channels = position_channels([[2, 0, 0]], [[2, 0, 0], [2, 8, 8]], 8, 8)
    assert torch.isfinite(channels).all()
    assert float(channels[0, 2, 0, 0]) == 1.0  # half a voxel beyond a box taken as one voxel thick
