from __future__ import annotations

import numpy as np
from scipy.interpolate import BSpline

from m2unet.phantom.smooth import SmoothField, spline_weights


def test_weights_are_those_of_a_cubic_b_spline() -> None:
    low, step, count = -5.0, 2.5, 12
    at = np.linspace(low + 1.2 * step, low + (count - 2.3) * step, 40).astype(np.float32)
    expected = [BSpline.basis_element(low + step * np.arange(k - 2, k + 3), False)(at) for k in range(count)]
    np.testing.assert_allclose(spline_weights(at, low, step, count), np.nan_to_num(expected).T, atol=1e-5)


def test_a_field_is_the_same_on_any_grid() -> None:
    field = SmoothField(np.random.default_rng(1), (0, 0, 0), (60, 50, 40), 6.0)
    fine = [np.arange(0, end, 1.0, dtype=np.float32) for end in (60, 50, 40)]
    coarse = [axis[3::5] for axis in fine]
    np.testing.assert_allclose(field.on(*coarse), field.on(*fine)[3::5, 3::5, 3::5], atol=1e-5)


def test_a_field_has_mean_zero_and_deviation_one() -> None:
    field = SmoothField(np.random.default_rng(2), (0, 0, 0), (300, 300, 300), 5.0)
    values = field.on(*[np.linspace(5, 295, 90, dtype=np.float32)] * 3)
    assert abs(values.mean()) < 0.03
    assert abs(values.std() - 1) < 0.03


def test_a_field_continues_beyond_its_box() -> None:
    field = SmoothField(np.random.default_rng(3), (0, 0, 0), (20, 20, 20), 4.0)
    inside, outside = np.float32([10.0]), np.float32([500.0, 600.0])
    values = field.on(outside, inside, inside)
    assert np.isfinite(values).all()
    assert values[0] == values[1]
