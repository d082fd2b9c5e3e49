"""Crop, resampling and the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from m2unet.config import PrepareConfig
from m2unet.ct.prepare import prepare_volume
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume, from_source
from m2unet.errors import ScanError


def chest(shape: tuple[int, int, int] = (20, 80, 100), spacing: tuple[float, float, float] = (5.0, 4.0, 4.0)) -> Volume:
    """An elliptic trunk with two lungs and a table below, HU."""
    z, y, x = np.indices(shape)
    cy, cx = shape[1] / 2, shape[2] / 2
    array = np.full(shape, -1000, dtype=np.int16)
    trunk = ((y - cy) / (0.34 * shape[1])) ** 2 + ((x - cx) / (0.42 * shape[2])) ** 2 < 1
    array[trunk] = 40
    for side in (-1, 1):
        lung = (
            ((y - cy) / (0.24 * shape[1])) ** 2
            + ((x - cx - side * 0.2 * shape[2]) / (0.15 * shape[2])) ** 2
            + ((z - shape[0] / 2) / (0.4 * shape[0])) ** 2
        ) < 1
        array[lung] = -850
    array[:, int(0.93 * shape[1]), :] = 300
    return from_source(array, spacing)


def test_crop_goes_around_the_body_and_clears_the_table() -> None:
    volume = chest()
    scan = prepare_volume(volume, PrepareConfig(min_box=16))
    rows, columns = np.nonzero((volume.array[10] == 40) | (volume.array[10] == -850))
    y0, y1, x0, x1 = scan.window
    assert 0 <= rows.min() - y0 <= 3 and 0 <= y1 - 1 - rows.max() <= 3
    assert 0 <= columns.min() - x0 <= 3 and 0 <= x1 - 1 - columns.max() <= 3
    assert not (scan.array == 300).any()
    inside = np.isin(volume.array, (40, -850))
    assert np.array_equal(scan.array[scan.crop_mask(inside.astype(np.uint8)) > 0], volume.array[inside])


def test_lungs_reference_bounds_the_lungs() -> None:
    volume = chest()
    scan = prepare_volume(volume, PrepareConfig(min_box=16))
    lungs = scan.references["lungs"]
    assert lungs is not None
    at = np.argwhere(scan.array == -850)
    assert np.abs(lungs[0] - at.min(axis=0)).max() <= 3
    assert np.abs(lungs[1] - at.max(axis=0) - 1).max() <= 3


def test_small_images_are_padded_with_air_to_the_least_box() -> None:
    volume = chest((6, 50, 60))
    scan = prepare_volume(volume, PrepareConfig(min_box=128))
    assert scan.array.shape == (6, 128, 128)
    assert (scan.array[:, :30] == -1024).all()
    mask = np.random.default_rng(0).integers(0, 6, volume.shape).astype(np.uint8)
    assert np.array_equal(scan.restore_mask(scan.crop_mask(mask)), mask)


@pytest.mark.parametrize("shape", [(6, 70, 90), (6, 180, 150)])
def test_mask_comes_back_exactly_inside_the_box(shape: tuple[int, int, int]) -> None:
    volume = chest(shape, (5.0, 2.2, 2.2))
    scan = prepare_volume(volume, PrepareConfig(min_box=16))
    mask = np.random.default_rng(0).integers(0, 7, volume.shape).astype(np.uint8)
    y0, y1, x0, x1 = scan.window
    expected = np.zeros_like(mask)
    expected[:, max(y0, 0) : y1, max(x0, 0) : x1] = mask[:, max(y0, 0) : y1, max(x0, 0) : x1]
    assert np.array_equal(scan.restore_mask(scan.crop_mask(mask)), expected)
    scores = np.eye(7, dtype=np.float32)[scan.crop_mask(mask)[2:5]].transpose(3, 0, 1, 2)
    assert np.array_equal(scan.restore_scores(scores), expected[2:5])


@pytest.mark.parametrize("inplane", [1.0, 3.0, 5.5])
def test_resampling_keeps_places_and_sizes(inplane: float) -> None:
    volume = chest((10, 120, 140), (5.0, 2.0, 2.5))
    scan = prepare_volume(volume, PrepareConfig(min_box=16, inplane_mm=inplane))
    assert scan.spacing_mm == pytest.approx((5.0, inplane, inplane))
    mask = (volume.array == -850).astype(np.uint8) * 3
    cropped = scan.crop_mask(mask)
    back = scan.restore_mask(cropped)
    assert set(np.unique(back)) == {0, 3}
    overlap = 2 * ((back > 0) & (mask > 0)).sum() / ((back > 0).sum() + (mask > 0).sum())
    assert overlap > 0.95
    shift = np.subtract(ndimage.center_of_mass(back), ndimage.center_of_mass(mask)) * volume.spacing_mm
    assert np.abs(shift).max() < 0.15 * inplane
    one_hot = np.stack([cropped == 0, cropped == 3]).astype(np.float32)
    assert np.array_equal(scan.restore_scores(one_hot) * 3, back)


def test_shrinking_averages() -> None:
    volume = chest((4, 120, 120), (5.0, 1.0, 1.0))
    noise = np.random.default_rng(1).normal(0, 100, volume.shape)
    noisy = from_source(volume.array + noise, volume.spacing_mm)
    scan = prepare_volume(noisy, PrepareConfig(min_box=16, inplane_mm=4.0))
    lungs = scan.references["lungs"]
    middle = scan.array[2, scan.array.shape[1] // 2 - 3 : scan.array.shape[1] // 2 + 3]
    assert lungs is None or lungs.shape == (2, 3)
    heart = middle[:, scan.array.shape[2] // 2 - 1 : scan.array.shape[2] // 2 + 1]
    assert abs(float(heart.mean()) - 40) < 40
    assert heart.std() < 60


def test_wrong_grids_are_refused() -> None:
    scan = prepare_volume(chest(), PrepareConfig(min_box=16))
    with pytest.raises(ScanError, match="volume's grid"):
        scan.crop_mask(np.zeros((1, 2, 3), np.uint8))
    with pytest.raises(ScanError, match="prepared grid"):
        scan.restore_mask(np.zeros((1, 2, 3), np.uint8))
    with pytest.raises(ScanError, match="prepared grid"):
        scan.restore_scores(np.zeros((7, 1, 2, 3), np.float32))


def test_a_scan_without_a_body_is_kept_whole() -> None:
    scan = prepare_volume(
        from_source(np.full((4, 40, 40), -1000, np.int16), (5.0, 2.0, 2.0)), PrepareConfig(min_box=16)
    )
    assert scan.array.shape == (4, 40, 40)
    assert (scan.array == -1000).all()
    assert scan.references["lungs"] is None


@pytest.mark.real
def test_real_scan_keeps_its_lungs(real_data: Path) -> None:
    volume = read_scan(real_data / "cip" / "ct-64.nrrd")
    scan = prepare_volume(volume, PrepareConfig(min_box=16))
    assert scan.references["lungs"] is not None
    labels, _ = ndimage.label(volume.array < -600)
    edges = np.unique(np.concatenate([labels[:, (0, -1)].ravel(), labels[:, :, (0, -1)].ravel()]))
    inside = (labels > 0) & ~np.isin(labels, edges)  # enclosed by the image's sides: lungs, airway, bowel
    assert inside.sum() * volume.voxel_ml > 3000
    kept = scan.crop_mask(inside.astype(np.uint8)) > 0
    assert kept.sum() > 0.995 * inside.sum()
