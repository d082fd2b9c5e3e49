from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from m2unet.phantom.anatomy import draw_anatomy
from m2unet.phantom.cohort import lung_box
from m2unet.phantom.protocol import SHARP, SITES, SOFT, Kernel, Protocol, draw_protocol
from m2unet.phantom.scanner import apply_kernel, draw_couch, expose, noise_gain, scan_grid, sublayers


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    lungs = lung_box(draw_anatomy(np.random.default_rng(0)))
    drawn = draw_protocol(np.random.default_rng(1), 0, lungs, "small")
    return replace(drawn, slices=6, noise_hu=20.0)


def water(protocol: Protocol, hu: float = -580.0) -> np.ndarray:
    """A uniform block that absorbs as the average slice does."""
    return np.full(scan_grid(protocol).shape, hu, np.float32)


@pytest.mark.parametrize("kernel", [SOFT, SHARP])
def test_noise_has_the_protocols_deviation(protocol: Protocol, kernel: Kernel) -> None:
    taken = replace(protocol, kernel=kernel)
    image = expose(water(taken), scan_grid(taken), taken, np.random.default_rng(0))
    middle = image[:, 40:120, 40:120].astype(float)
    assert middle.mean() == pytest.approx(-580, abs=1)
    assert middle.std() == pytest.approx(20, rel=0.05)


def test_smooth_kernels_make_coarser_noise(protocol: Protocol) -> None:
    correlation = []
    for kernel in (SOFT, SHARP):
        taken = replace(protocol, kernel=kernel, pixel_mm=0.7)
        noise = expose(water(taken), scan_grid(taken), taken, np.random.default_rng(0))[:, 40:120, 40:120] + 580.0
        correlation.append(float((noise[..., 1:] * noise[..., :-1]).mean() / noise.var()))
    assert correlation[0] > correlation[1] + 0.3


def test_denser_slices_are_noisier(protocol: Protocol) -> None:
    hu = water(protocol)
    hu[3:] = 0.0
    image = expose(hu, scan_grid(protocol), protocol, np.random.default_rng(0)).astype(float)
    assert image[4, 40:120, 40:120].std() > 1.2 * image[1, 40:120, 40:120].std()


def test_sharp_kernels_overshoot_at_edges_and_keep_flat_regions() -> None:
    step = np.zeros((1, 64, 64), np.float32)
    step[:, :, 32:] = 100
    soft, sharp = apply_kernel(step, SOFT, 1.0), apply_kernel(step, SHARP, 1.0)
    assert soft.max() <= 100.01
    assert sharp.max() > 105
    assert sharp[0, 32, 5] == pytest.approx(0, abs=0.01)
    assert sharp[0, 32, 60] == pytest.approx(100, abs=0.01)


def test_noise_gain_against_simulated_noise() -> None:
    noise = np.random.default_rng(0).standard_normal((20, 100, 100), dtype=np.float32)
    for kernel in (SOFT, SHARP):
        assert apply_kernel(noise, kernel, 0.9).std() == pytest.approx(noise_gain(kernel, 0.9), rel=0.03)


@pytest.mark.parametrize("site", range(len(SITES)))
def test_padding_fills_the_corners_of_circular_fields(protocol: Protocol, site: int) -> None:
    taken = replace(protocol, site=site)
    image = expose(water(taken), scan_grid(taken), taken, np.random.default_rng(0))
    corner, middle = image[:, 0, 0], image[:, 80, 0:160:40]
    assert (corner == SITES[site].padding).all() == SITES[site].circular
    assert (middle > -1000).all()
    assert image.dtype == np.int16


def test_hu_are_clipped_to_twelve_bits(protocol: Protocol) -> None:
    taken = replace(protocol, site=2)
    image = expose(water(taken, 9000.0), scan_grid(taken), taken, np.random.default_rng(0))
    assert image.max() == 3071
    image = expose(water(taken, -1000.0), scan_grid(taken), taken, np.random.default_rng(0))
    assert image.min() == -1024


@pytest.mark.parametrize("site", [0, 2])
def test_the_couch_is_drawn_into_air_below_the_back(protocol: Protocol, site: int) -> None:
    taken = replace(protocol, site=site, pixel_mm=2.6)
    grid = scan_grid(taken)
    hu = np.full(grid.shape, -1000, np.float32)
    hu[:, 60:90, 50:110] = 40
    before = hu.copy()
    draw_couch(hu, grid, taken, back_mm=60.0)
    drawn = hu != before
    y = np.broadcast_to(grid.axes()[1][:, None], grid.shape)
    assert drawn.any()
    assert (y[hu > -700][before[hu > -700] < 0] > 35).all()
    np.testing.assert_array_equal(hu[:, 60:90, 50:110], 40)
    assert hu[before < 0].max() < 0


def test_a_slice_is_the_mean_of_layers_across_its_thickness(protocol: Protocol) -> None:
    for thickness, count in ((1.0, 1), (5.0, 3), (10.0, 3)):
        offsets = np.array(sublayers(replace(protocol, thickness_mm=thickness)))
        assert len(offsets) == count
        assert 0.0 in offsets
        np.testing.assert_allclose(offsets, -offsets[::-1])
        assert np.ptp(offsets) + thickness / count == pytest.approx(thickness)
