"""The coarse grid against plain loops and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from m2unet.ct.coarse import CoarseGrid, Disk


@pytest.mark.parametrize("shape", [(7, 13, 11), (4, 10, 10), (1, 5, 3)])
def test_average_is_the_mean_of_each_block(shape: tuple[int, int, int]) -> None:
    array = np.random.default_rng(0).integers(-1024, 3071, shape).astype(np.int16)
    grid = CoarseGrid.fitting(shape, (1.2, 0.6, 0.9))
    fz, fy, fx = grid.factors
    average = grid.average(array)
    for index in np.ndindex(average.shape):
        z, y, x = (i * f for i, f in zip(index, grid.factors, strict=True))
        assert average[index] == pytest.approx(array[z : z + fz, y : y + fy, x : x + fx].mean(), abs=1e-3)


def test_expand_and_box_agree() -> None:
    grid = CoarseGrid.fitting((9, 20, 22), (1.0, 0.6, 0.6))
    coarse = np.zeros(grid.average(np.zeros((9, 20, 22), np.int16)).shape, dtype=bool)
    coarse[1:3, 2:5, 1:6] = True
    full = grid.expand(coarse)
    assert full.shape == (9, 20, 22)
    at = np.argwhere(full)
    low, high = grid.box(coarse)
    assert low.tolist() == at.min(axis=0).tolist() and high.tolist() == (at.max(axis=0) + 1).tolist()
    assert np.array_equal(grid.sample(full), coarse)


def footprint(disk: Disk) -> np.ndarray:
    shape = np.zeros((1, 2 * disk.ry + 1, 2 * disk.rx + 1), dtype=bool)
    for row, reach in enumerate(disk.reach):
        shape[0, row, disk.rx - reach : disk.rx + reach + 1] = True
    return shape


@pytest.mark.parametrize("mm", [0, 4, 9])
def test_disk_does_what_scipy_does(mm: float) -> None:
    disk = CoarseGrid((3, 30, 40), (1, 1, 1), (2.5, 2.0, 1.5)).disk(mm)
    mask = np.random.default_rng(0).random((3, 30, 40)) > 0.8
    assert np.array_equal(disk.dilate(mask), ndimage.binary_dilation(mask, footprint(disk)))
    assert np.array_equal(disk.erode(~mask), ndimage.binary_erosion(~mask, footprint(disk), border_value=1))
    blob = ndimage.binary_dilation(mask, np.ones((1, 4, 4)))
    inner = (slice(None), slice(2 * disk.ry, -2 * disk.ry), slice(2 * disk.rx, -2 * disk.rx))
    opened, closed = disk.open(blob), disk.close(blob)
    assert np.array_equal(opened[inner], ndimage.binary_opening(blob, footprint(disk))[inner])
    assert np.array_equal(closed[inner], ndimage.binary_closing(blob, footprint(disk))[inner])
    assert (opened <= blob).all() and (blob <= closed).all()
