"""A stack of bits against the array it stands for."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from m2unet.export.mask_stack import MaskStack


@pytest.mark.parametrize("count", [1, 7, 8])
def test_it_answers_as_the_array_would(count: int) -> None:
    whole = np.random.default_rng(0).integers(0, 2, (5, 7, 9, count), dtype=np.uint8)
    stack = MaskStack(np.packbits(whole, axis=-1, bitorder="little")[..., 0], count)
    assert stack.shape == whole.shape and stack.ndim == whole.ndim and stack.dtype == whole.dtype and len(stack) == 5
    np.testing.assert_array_equal(np.asarray(stack), whole)
    np.testing.assert_array_equal(np.stack(list(stack)), whole)
    np.testing.assert_array_equal(stack[np.int64(3)], whole[3])
    np.testing.assert_array_equal(stack[1:3, 2], whole[1:3, 2])
    np.testing.assert_array_equal(stack.sum(axis=-1), whole.sum(axis=-1))
    with pytest.raises(NotImplementedError):
        stack.sum(axis=0)
    order = np.array([4, 2, 0, 1, 3])
    np.testing.assert_array_equal(np.asarray(stack.reordered(order)), whole[order])
    for number in range(count):
        assert stack.digest(number) == hashlib.sha256(np.packbits(whole[..., number]).tobytes()).hexdigest()


def test_its_largest_value() -> None:
    assert MaskStack(np.zeros((2, 3, 3), np.uint8), 3).max() == 0
    assert MaskStack(np.full((2, 3, 3), 4, np.uint8), 3).max() == 1
