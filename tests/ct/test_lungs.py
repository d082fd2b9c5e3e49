"""Coarse lungs: box, volume, what is cut off, and what is no lung."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from m2unet.ct.body import find_body
from m2unet.ct.lungs import Lungs, find_lungs
from m2unet.ct.quality import check_anatomy
from m2unet.ct.volume import Volume, from_source
from tests.ct.samples import chest

SHAPE, SPACING = (80, 160, 190), (2.5, 2.4, 2.4)
ARRAY = chest(SHAPE, SPACING)
LUNGS = (ndimage.gaussian_filter(ARRAY.astype(np.float32), 1) < -600) & (
    ndimage.gaussian_filter(ARRAY.astype(np.float32), 1) > -930
)


def lungs_of(array: np.ndarray) -> Lungs | None:
    body = find_body(array, SPACING, 0)
    assert body is not None
    return find_lungs(array, SPACING, body.mask)


def true_box() -> tuple[np.ndarray, np.ndarray]:
    clean = chest(SHAPE, SPACING, noise=0)
    at = np.argwhere(clean == -850)
    return at.min(axis=0), at.max(axis=0) + 1


def test_box_and_volume() -> None:
    lungs = lungs_of(ARRAY)
    assert lungs is not None
    low, high = true_box()
    assert np.abs(lungs.low - low).max() <= 2 and np.abs(lungs.high - high).max() <= 2
    expected = (chest(SHAPE, SPACING, noise=0) == -850).sum() * np.prod(SPACING) / 1000
    assert lungs.ml == pytest.approx(expected, rel=0.03)
    assert not (lungs.cut_top or lungs.cut_bottom or lungs.cut_sides)


def test_airway_above_the_lungs_does_not_count() -> None:
    lungs = lungs_of(ARRAY)
    assert lungs is not None
    assert (chest(SHAPE, SPACING, noise=0)[-1] == -1000).any()  # the airway reaches the top of the scan
    assert lungs.high[0] <= true_box()[1][0] + 2


@pytest.mark.parametrize(("part", "cut"), [(slice(25, 80), "cut_bottom"), (slice(0, 55), "cut_top")])
def test_lungs_cut_off(part: slice, cut: str) -> None:
    lungs = lungs_of(ARRAY[part])
    assert lungs is not None
    assert {name for name in ("cut_top", "cut_bottom", "cut_sides") if getattr(lungs, name)} == {cut}


@pytest.mark.parametrize("padded", [True, False])
def test_lungs_cut_at_a_side(padded: bool) -> None:
    low, _ = true_box()
    edge = int(low[2]) + 4
    array = ARRAY.copy()
    if padded:
        array[:, :, :edge] = -1024
    else:
        array = np.ascontiguousarray(array[:, :, edge:])
    lungs = lungs_of(array)
    assert lungs is not None and lungs.cut_sides


def test_dense_disease_leaves_the_box() -> None:
    array = ARRAY.copy()
    rng = np.random.default_rng(0)
    clean = chest(SHAPE, SPACING, noise=0) == -850
    patches = ndimage.gaussian_filter(rng.normal(size=SHAPE), 5)
    dense = clean & (patches > np.quantile(patches[clean], 0.45))  # over half of the lung turns solid
    array[dense] = 20
    healthy, ill = lungs_of(ARRAY), lungs_of(array)
    assert healthy is not None and ill is not None
    assert ill.ml < 0.6 * healthy.ml
    assert np.abs(ill.low - healthy.low).max() * 2.5 <= 15 and np.abs(ill.high - healthy.high).max() * 2.5 <= 15


def test_bowel_gas_below_is_not_lung() -> None:
    array = np.concatenate([np.full((30, *SHAPE[1:]), 45, np.int16), ARRAY])
    array[:30] = np.where(ARRAY[0] > -500, array[:30], ARRAY[0])
    z, y, x = np.indices(array.shape)
    gas = ((z - 12) / 8) ** 2 + ((y - 60) / 16) ** 2 + ((x - 120) / 20) ** 2 < 1
    array[gas] = -1000
    lungs = lungs_of(array)
    assert lungs is not None
    assert lungs.low[0] >= 30 + true_box()[0][0] - 2


def without_lungs() -> np.ndarray:
    array = np.where(ARRAY == 0, ARRAY, np.where(LUNGS, 40, ARRAY)).astype(np.int16)
    array[ndimage.binary_dilation(LUNGS, iterations=2)] = 40
    return array


def test_no_lungs() -> None:
    assert lungs_of(without_lungs()) is None


def test_two_slices_are_enough() -> None:
    lungs = lungs_of(ARRAY[39:41])
    assert lungs is not None and lungs.cut_top and lungs.cut_bottom


@pytest.mark.parametrize("round_field", [False, True])
def test_lungs_that_a_small_field_of_view_cuts_open_are_found(round_field: bool) -> None:
    """A heart CT: 190 mm of the chest's middle, no wall around the lungs."""
    array = ARRAY[10:70, 28:108, 55:135].copy()
    array += (np.random.default_rng(1).random(array.shape) < 0.05).astype(np.int16) * 500  # vessels
    if round_field:
        y, x = np.indices(array.shape[1:])
        array[:, (y - 39.5) ** 2 + (x - 39.5) ** 2 > 40**2] = -1024
    (found,) = check_anatomy(from_source(array, SPACING)).findings
    assert found.code == "lungs-cut-off" and "a side" in found.found
    lungs = check_anatomy(from_source(array, SPACING)).lungs
    held = np.count_nonzero((array < -500) & (array > -1000)) * np.prod(SPACING) / 1000
    assert lungs is not None and lungs.ml == pytest.approx(held, rel=0.2)


def test_air_beside_the_body_is_no_lung_that_the_field_cuts() -> None:
    array = without_lungs()
    y = np.indices(SHAPE[1:])[0]
    foam = (y > 133) & (y < 148)
    array[:, foam] = np.random.default_rng(0).normal(-900, 60, (SHAPE[0], int(foam.sum()))).astype(np.int16)
    assert lungs_of(array) is None


def test_a_wide_airway_at_the_top_is_no_lung_cut_off() -> None:
    array = ARRAY.copy()
    z, y, x = np.indices(SHAPE, sparse=True)
    wide = ((y - 73) * 2.4) ** 2 + ((x - 95) * 2.4) ** 2 < 14**2
    array[np.broadcast_to(wide & (z > 40), SHAPE)] = -1000
    lungs = lungs_of(array)
    assert lungs is not None and not lungs.cut_top


@pytest.mark.real
def test_a_real_heart_ct_and_short_parts_of_the_trunk(nlst: Volume) -> None:
    heart = from_source(nlst.array[30:90, 40:410, 80:450].copy(), nlst.spacing_mm)
    anatomy = check_anatomy(heart)
    assert [f.code for f in anatomy.findings] == ["lungs-cut-off"]
    assert anatomy.lungs is not None and anatomy.lungs.ml > 1600
    abdomen = check_anatomy(from_source(nlst.array[:21].copy(), nlst.spacing_mm))
    assert [(f.code, f.level) for f in abdomen.findings] == [("lungs-absent", "error")]
    lungs = check_anatomy(from_source(nlst.array[60:80].copy(), nlst.spacing_mm))
    assert [f.code for f in lungs.findings] == ["lungs-cut-off"]


@pytest.mark.real
def test_real_lungs(nlst: Volume) -> None:
    """Against a plain segmentation: everything below -500 HU that the sides of the image do not touch."""
    body = find_body(nlst.array, nlst.spacing_mm, 0)
    assert body is not None
    lungs = find_lungs(nlst.array, nlst.spacing_mm, body.mask)
    assert lungs is not None
    labels, _ = ndimage.label(nlst.array[:, ::2, ::2] < -500)
    edges = np.unique(np.concatenate([labels[:, (0, -1)].ravel(), labels[:, :, (0, -1)].ravel()]))
    sizes = np.bincount(labels.ravel())
    sizes[edges] = 0
    reference = labels == sizes.argmax()  # both lungs with trachea
    found = lungs.grid.expand(lungs.mask_coarse)[:, ::2, ::2]
    assert 2 * (found & reference).sum() / (found.sum() + reference.sum()) > 0.95
    assert lungs.ml == pytest.approx(4 * reference.sum() * nlst.voxel_ml, rel=0.06)
    assert 0 <= lungs.low[0] <= 15 and 130 <= lungs.high[0] <= 140
    assert not (lungs.cut_top or lungs.cut_bottom or lungs.cut_sides)
