"""The batch: which instances a network sees, and where they lie."""

from __future__ import annotations

import pytest
import torch

from m2unet.models.base import of_bags, to_bags
from tests.models.samples import PATCH, make_batch


def test_inputs_are_the_real_instances_in_order() -> None:
    batch = make_batch([2, 3], position=True)
    images = batch.inputs(position=True)
    assert batch.bags == 2
    assert images.shape == (5, 4, PATCH, PATCH)
    assert torch.equal(images[1, :1], batch.patches[0, 1])
    assert torch.equal(images[2, 1:], batch.position[1, 0])  # type: ignore[index]
    assert torch.equal(batch.inputs(position=False), images[:, :1])


def test_position_must_be_there() -> None:
    with pytest.raises(ValueError, match="position"):
        make_batch([2]).inputs(position=True)


def test_moving_keeps_what_is_absent_absent() -> None:
    moved = make_batch([2]).to("meta")
    assert moved.patches.device.type == "meta" and moved.has_lobes.device.type == "meta"
    assert moved.position is None


def test_rows_of_bags_and_back() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    rows = torch.arange(6)
    assert of_bags(rows, mask, torch.tensor([True, False, True])).tolist() == [0, 1, 3, 4, 5]
    assert of_bags(rows, mask, torch.tensor([False] * 3)).tolist() == []
    assert to_bags(rows, mask, fill=-1).tolist() == [[0, 1, -1], [2, -1, -1], [3, 4, 5]]
