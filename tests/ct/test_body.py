"""The body: without table and air, with the lungs, in spite of noise, contact and narrow fields of view."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from m2unet.ct.body import find_body
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from tests.ct.samples import chest

SHAPE, SPACING = (16, 160, 190), (5.0, 2.4, 2.4)


def truth(array: NDArray[np.int16]) -> NDArray[np.bool_]:
    """The trunk of a noiseless chest: its largest piece of tissue, filled slice by slice."""
    labels, _ = ndimage.label(array > -500)
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return np.stack([ndimage.binary_fill_holes(plane) for plane in largest])


CLEAN = chest(SHAPE, SPACING, noise=0)
TRUNK = truth(CLEAN)
MUSCLE = np.stack([ndimage.binary_fill_holes(plane) for plane in TRUNK & (CLEAN > 0)])


def agreement(found: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    return float(2 * (found & expected).sum() / (found.sum() + expected.sum()))


@pytest.mark.parametrize(("threshold", "expected"), [(0, MUSCLE), (-500, TRUNK)])
@pytest.mark.parametrize("noise", [0.0, 120.0])
def test_it_is_the_trunk_with_its_lungs(threshold: int, expected: NDArray[np.bool_], noise: float) -> None:
    array = chest(SHAPE, SPACING, noise=noise)
    body = find_body(array, SPACING, threshold)
    assert body is not None
    assert agreement(body.mask, expected) > (0.97 if noise == 0 else 0.95)
    lungs = TRUNK & (CLEAN < -500)
    assert body.mask[lungs].all()
    at = np.argwhere(body.mask)
    assert body.low.tolist() == at.min(axis=0).tolist()
    assert body.high.tolist() == (at.max(axis=0) + 1).tolist()


@pytest.mark.parametrize("threshold", [0, -500])
def test_a_table_in_contact_is_left_out(threshold: int) -> None:
    array = CLEAN.copy()
    bottom = int(np.argwhere(TRUNK.any(axis=(0, 2))).max())
    table = np.zeros(SHAPE, dtype=bool)
    table[:, bottom : bottom + 2, 10:-10] = True  # a shell of 5 mm that the back rests on
    table[:, bottom + 12 : bottom + 14, 10:-10] = True
    array[table & ~TRUNK] = 200
    body = find_body(array, SPACING, threshold)
    assert body is not None
    assert agreement(body.mask, TRUNK if threshold < 0 else MUSCLE) > 0.96
    assert not body.mask[:, bottom + 8 :].any()


def test_arms_beside_the_trunk_are_left_out() -> None:
    array = CLEAN.copy()
    y, x = np.indices(SHAPE[1:])
    arm = ((y - 74) ** 2 + (x - 7) ** 2) < 6**2
    array[:, arm & ~TRUNK.any(axis=0)] = 50
    body = find_body(array, SPACING, -500)
    assert body is not None and not body.mask[:, 70:78, :8].any()


@pytest.mark.parametrize("threshold", [0, -500])
def test_a_field_of_view_that_cuts_the_wall_keeps_the_lungs(threshold: int) -> None:
    lungs = TRUNK & (CLEAN < -500)
    left = int(np.argwhere(lungs.any(axis=(0, 1))).min())
    cut = slice(left + 4, SHAPE[2] - left - 4)  # through both lungs, 10 mm deep
    noisy = chest(SHAPE, SPACING, noise=40.0)
    body = find_body(np.ascontiguousarray(noisy[:, :, cut]), SPACING, threshold)
    assert body is not None
    assert body.mask[lungs[:, :, cut]].mean() > 0.98
    assert not body.mask[:, :4].any()


def test_round_field_of_view_with_padding() -> None:
    lungs = TRUNK & (CLEAN < -500)
    y, x = np.indices(SHAPE[1:])
    outside = (y - SHAPE[1] * 0.46) ** 2 + (x - SHAPE[2] / 2) ** 2 > 58**2  # cuts both lungs at the sides
    array = chest(SHAPE, SPACING, noise=40.0)
    array[:, outside] = -1024
    seen = lungs & ~outside
    assert (lungs & outside).any()
    body = find_body(array, SPACING, 0)
    assert body is not None and body.mask[seen].mean() > 0.97


def test_air_alone_is_no_body() -> None:
    assert find_body(np.full((5, 40, 40), -1000, np.int16), (5.0, 2.0, 2.0)) is None
    fat = np.full((5, 40, 40), -1000, np.int16)
    fat[:, 10:30, 10:30] = -100
    assert find_body(fat, (5.0, 2.0, 2.0), 0) is None
    assert find_body(fat, (5.0, 2.0, 2.0), -500) is not None


def check_real(volume: Volume) -> None:
    body = find_body(volume.array, volume.spacing_mm, 0)
    assert body is not None
    step = 1 + volume.shape[1] // 256
    array, mask = volume.array[:, ::step, ::step], body.mask[:, ::step, ::step]
    enclosed, _ = ndimage.label(array < -600)
    edges = np.unique(np.concatenate([enclosed[:, (0, -1)].ravel(), enclosed[:, :, (0, -1)].ravel()]))
    lungs = (enclosed > 0) & ~np.isin(enclosed, edges)
    assert mask[lungs].mean() > 0.995
    height = array.shape[1]
    assert not mask[:, : height // 20][array[:, : height // 20] < -900].any()
    assert array[:, int(height * 0.93) :].max() > -700  # the table, behind the back
    assert not mask[:, int(height * 0.93) :].any()


@pytest.mark.real
def test_the_nlst_scan(nlst: Volume) -> None:
    check_real(nlst)


@pytest.mark.real
def test_the_small_real_scan(real_data: Path) -> None:
    check_real(read_scan(real_data / "cip" / "ct-64.nrrd"))
