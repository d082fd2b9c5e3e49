"""Resampling weights against block means, interpolation by NumPy, and conservation."""

from __future__ import annotations

import numpy as np
import pytest

from m2unet.ct.resample import area_weights, linear_weights, resample_plane


def test_whole_factors_are_block_means() -> None:
    plane = np.random.default_rng(0).normal(size=(12, 20)).astype(np.float32)
    small = resample_plane(plane, area_weights(12, 4, 3.0), area_weights(20, 5, 4.0))
    assert small == pytest.approx(plane.reshape(4, 3, 5, 4).mean(axis=(1, 3)), abs=1e-5)


def test_broken_factors_keep_the_total() -> None:
    weights = area_weights(10, 4, 2.5).toarray()
    assert weights.sum(axis=1) == pytest.approx(np.ones(4))
    assert weights.sum(axis=0) == pytest.approx(np.full(10, 0.4))
    assert weights[0].tolist() == pytest.approx([0.4, 0.4, 0.2, 0, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("scale", [0.3, 0.5, 1.0, 1.7])
def test_linear_is_linear_interpolation(scale: float) -> None:
    values = np.random.default_rng(1).normal(size=9)
    target = int(9 / scale)
    expected = np.interp((np.arange(target) + 0.5) * scale - 0.5, np.arange(9), values)
    assert linear_weights(9, target, scale) @ values == pytest.approx(expected, abs=1e-5)


def test_a_single_voxel_and_a_target_beyond_the_source() -> None:
    assert linear_weights(1, 3, 0.33).toarray().tolist() == [[1], [1], [1]]
    assert area_weights(4, 3, 2.0).toarray()[2].tolist() == [0, 0, 0, 1]
    assert np.array_equal(area_weights(4, 8, 0.5).toarray(), linear_weights(4, 8, 0.5).toarray())
