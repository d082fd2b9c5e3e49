"""The drawn chest: lobes where they belong, the same on every grid, tissues with their HU."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from m2unet.errors import M2UNetError
from m2unet.phantom.anatomy import FAR_MM, Anatomy, Grid, Tissues, draw_anatomy
from m2unet.phantom.measure import volumes_ml

COARSE = (7.0, 3.5, 3.5)
REAL_SHARES = {"RUL": 20.3, "RML": 9.1, "RLL": 23.9, "LUL": 24.5, "LLL": 22.1}
"""Mean shares of lung volume in percent over the 51 lobe maps of H. Tang et al. 2019 (LUNA16 scans)."""


def around(anatomy: Anatomy, spacing: tuple[float, float, float], margin: float = 8) -> Grid:
    low, high = (np.array(corner) for corner in anatomy.lung_extent_mm)
    return Grid.around(tuple(low - margin), tuple(high + margin), spacing)


@cache
def chest(number: int) -> Anatomy:
    return Anatomy(draw_anatomy(np.random.default_rng([5, number])))


@cache
def drawn(number: int) -> Tissues:
    return chest(number).render(around(chest(number), COARSE), vessels=False)


@cache
def whole() -> tuple[Grid, Tissues]:
    """A body from abdomen to neck, 2 mm across."""
    low, high = chest(0).body_extent_mm
    grid = Grid.around(low, high, (6.0, 2.5, 2.5))
    return grid, chest(0).render(grid)


def test_a_grid_knows_its_axes_and_refuses_nonsense() -> None:
    grid = Grid((3, 2, 2), (5.0, 1.0, 2.0), (-5.0, 0.0, 1.0))
    z, y, x = grid.axes()
    assert z.tolist() == [-5, 0, 5] and y.tolist() == [0, 1] and x.tolist() == [1, 3]
    assert grid.slab(1, 3) == Grid((2, 2, 2), (5.0, 1.0, 2.0), (0.0, 0.0, 1.0))
    with pytest.raises(M2UNetError, match="positive"):
        Grid((3, 0, 2), (5.0, 1.0, 2.0), (0.0, 0.0, 0.0))


@pytest.mark.parametrize("number", range(30))
def test_five_lobes_each_in_one_piece(number: int) -> None:
    lobes = drawn(number).lobes
    assert set(np.unique(lobes)) == set(range(7))
    for code in range(1, 6):
        parts, _ = ndimage.label(lobes == code, np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel())[1:]
        assert sizes.max() > 0.97 * sizes.sum()


@pytest.mark.parametrize("number", range(6))
def test_sides_and_order_of_the_lobes(number: int) -> None:
    grid, lobes = around(chest(number), COARSE), drawn(number).lobes
    centre = {code: np.array(ndimage.center_of_mass(lobes == code)) * COARSE + grid.origin_mm for code in range(1, 6)}
    assert all(centre[code][2] < -20 for code in (1, 2, 3))
    assert all(centre[code][2] > 20 for code in (4, 5))
    assert centre[1][0] > centre[2][0] and centre[1][0] > centre[3][0] and centre[4][0] > centre[5][0]
    assert centre[2][1] < centre[3][1] and centre[4][1] < centre[5][1]


def test_the_windpipe_runs_down_the_midline_to_the_carina() -> None:
    for number in range(4):
        anatomy, grid = chest(number), around(chest(number), COARSE)
        z, _, x = grid.axes()
        height = (anatomy.parameters.carina + 0.06) * anatomy.parameters.lung_height_mm
        level = int(np.searchsorted(z, height))
        across = x[np.nonzero(drawn(number).lobes[level] == 6)[1]]
        assert len(across) and abs(float(across.mean())) < 15


def test_shares_match_those_of_real_lungs(real_shares: dict[str, float]) -> None:
    shares = []
    for number in range(30):
        ml = volumes_ml(drawn(number).lobes, COARSE)
        shares.append([100 * v / sum(ml.values()) for v in ml.values()])
    for name, mean, spread in zip(ml, np.mean(shares, 0), np.std(shares, 0), strict=True):
        assert mean == pytest.approx(real_shares[name], abs=3)
        assert 1.5 < spread < 6.5


@pytest.fixture
def real_shares(request: pytest.FixtureRequest) -> dict[str, float]:
    """Means over the real maps where they are present, else the recorded ones."""
    try:
        folder: Path = request.getfixturevalue("real_data") / "lobe-maps-small"
    except pytest.skip.Exception:
        return REAL_SHARES
    import SimpleITK as sitk

    found = []
    for path in sorted(folder.glob("*.nii.gz")):
        image = sitk.ReadImage(str(path))
        ml = volumes_ml(sitk.GetArrayFromImage(image), image.GetSpacing()[::-1])
        found.append([100 * v / sum(ml.values()) for v in ml.values()])
    means = dict(zip(REAL_SHARES, np.mean(found, 0), strict=True)) if found else REAL_SHARES
    assert means == pytest.approx(REAL_SHARES, abs=0.1)
    return means


@pytest.mark.parametrize("spacing", [(3.0, 1.5, 1.5), (7.0, 2.2, 2.2), (4.0, 2.0, 3.0)])
def test_volumes_do_not_depend_on_the_grid(spacing: tuple[float, float, float]) -> None:
    reference = volumes_ml(drawn(1).lobes, COARSE)
    other = volumes_ml(chest(1).render(around(chest(1), spacing), vessels=False).lobes, spacing)
    for name, ml in other.items():
        assert ml == pytest.approx(reference[name], rel=0.03)


def test_the_same_numbers_give_the_same_chest() -> None:
    one, two = (draw_anatomy(np.random.default_rng(9)) for _ in range(2))
    assert one == two
    assert draw_anatomy(np.random.default_rng(10)) != one
    grid = Grid((6, 60, 60), (20.0, 6.0, 6.0), (60.0, -170.0, -170.0))
    first, second = (Anatomy(p).render(grid) for p in (one, two))
    for name in ("hu", "lobes", "pleura_mm", "fissure_mm", "vessels"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_distances_are_positive_in_the_lungs_only() -> None:
    _, tissues = whole()
    lungs = (tissues.lobes >= 1) & (tissues.lobes <= 5)
    assert (tissues.pleura_mm[lungs] > 0).all() and (tissues.pleura_mm[~lungs] == 0).all()
    assert (tissues.fissure_mm[~lungs] == FAR_MM).all() and (tissues.fissure_mm[lungs] < 200).all()
    assert lungs[tissues.vessels].all() and 0.005 < tissues.vessels.sum() / lungs.sum() < 0.12
    # Depth is close to the true distance from the nearest voxel outside lungs and airways, near the surface.
    filled = ndimage.distance_transform_edt(tissues.lobes > 0, sampling=(6.0, 2.5, 2.5))
    near = lungs & (filled > 6) & (filled < 20)
    assert np.corrcoef(filled[near], tissues.pleura_mm[near])[0, 1] > 0.6


def test_fissure_distance_is_small_where_lobes_meet() -> None:
    _, tissues = whole()
    lobes = tissues.lobes
    meet = ((lobes[:-1] == 4) & (lobes[1:] == 5)) | ((lobes[:-1] == 5) & (lobes[1:] == 4))
    meet |= (lobes[1:] == 1) & (lobes[:-1] == 2)
    assert meet.sum() > 50
    assert tissues.fissure_mm[:-1][meet].max() <= 7


def test_tissues_have_their_hu() -> None:
    grid, tissues = whole()
    hu, lobes = tissues.hu, tissues.lobes
    assert np.isfinite(hu).all() and hu.min() >= -1001 and hu.max() < 1000
    assert (hu[:, 0, 0] == -1000).all()
    lungs = (lobes >= 1) & (lobes <= 5)
    p = chest(0).parameters
    assert np.median(hu[lungs]) == pytest.approx(p.lung_hu, abs=30)
    assert hu[tissues.vessels].mean() > -300
    z, y, x = grid.axes()
    trachea = (lobes == 6) & (z > 0.8 * p.lung_height_mm)[:, None, None]
    assert np.median(hu[trachea]) < -950
    body = ndimage.binary_fill_holes(hu > -300)
    assert 0.01 < (hu[body] > 180).mean() < 0.08
    assert ((hu > -130) & (hu < -70)).sum() > 0.1 * body.sum()
    assert ((hu > 20) & (hu < 80)).sum() > 0.25 * body.sum()
    heart = hu[
        int(np.searchsorted(z, 0.4 * p.lung_height_mm)), int(np.searchsorted(y, -30)), int(np.searchsorted(x, 20))
    ]
    assert 20 < heart < 80


def test_gravity_makes_the_back_denser() -> None:
    steep = replace(chest(2).parameters, gravity_hu_per_mm=0.5)
    anatomy = Anatomy(steep)
    tissues = anatomy.render(around(anatomy, COARSE), vessels=False)
    lungs = (tissues.lobes >= 1) & (tissues.lobes <= 5) & (tissues.pleura_mm > 8)
    y = np.broadcast_to(around(anatomy, COARSE).axes()[1][None, :, None], lungs.shape)[lungs]
    assert np.polyfit(y, np.clip(tissues.hu[lungs], -1000, -700), 1)[0] == pytest.approx(0.5, abs=0.12)


def test_breathing_out_shrinks_and_darkens_no_further_than_the_wall() -> None:
    anatomy, grid = chest(3), around(chest(3), COARSE, 20)
    full, empty = (anatomy.render(grid, inspiration=share) for share in (1.0, 0.3))
    volume = [sum(volumes_ml(t.lobes, COARSE).values()) for t in (full, empty)]
    assert 0.45 < volume[1] / volume[0] < 0.9
    medians = [float(np.median(t.hu[(t.lobes >= 1) & (t.lobes <= 5)])) for t in (full, empty)]
    assert medians[1] > medians[0] + 20
    assert (full.hu > 300).sum() == pytest.approx((empty.hu > 300).sum(), rel=0.05)


def test_knobs_do_what_they_say() -> None:
    base = replace(chest(4).parameters, rotation_degrees=0.0, scoliosis_mm=0.0, asymmetry=0.0)
    grid = Grid((30, 130, 160), (10.0, 3.0, 3.0), (-10.0, -195.0, -240.0))
    plain = Anatomy(base).render(grid, vessels=False)
    missing = Anatomy(replace(base, missing_lobe=2)).render(grid, vessels=False)
    assert not (missing.lobes == 2).any()
    assert (missing.lobes == 1).sum() == (np.isin(plain.lobes, (1, 2))).sum()
    turned = Anatomy(replace(base, rotation_degrees=12.0)).render(grid, vessels=False)
    assert volumes_ml(turned.lobes, grid.spacing_mm)["LLL"] == pytest.approx(
        volumes_ml(plain.lobes, grid.spacing_mm)["LLL"], rel=0.04
    )
    left = [np.array(ndimage.center_of_mass(np.isin(t.lobes, (4, 5)))) for t in (plain, turned)]
    assert abs(left[1][1] - left[0][1]) * 3 > 8
    fat = Anatomy(replace(base, fat_mm=base.fat_mm + 25)).render(grid, vessels=False)
    assert (fat.hu > -300).sum() > 1.15 * (plain.hu > -300).sum()
    down, up = (Anatomy(replace(base, arms_up=flag)).render(grid, vessels=False) for flag in (False, True))
    beside = np.abs(grid.axes()[2]) > base.half_width_mm + base.muscle_mm + base.fat_mm + 20
    assert (down.hu[4][:, beside] > 300).any() and not (up.hu[4][:, beside] > 300).any()
    sheet = [Anatomy(replace(base, fissure_incomplete=share)).render(grid, vessels=False).hu for share in (0.0, 5.0)]
    assert sheet[0].sum() > sheet[1].sum()


def test_women_have_breasts() -> None:
    base = replace(chest(4).parameters, sex="M", rotation_degrees=0.0)
    z = 0.38 * base.lung_height_mm
    grid = Grid((1, 200, 200), (5.0, 2.0, 2.0), (z, -200.0, -200.0))
    areas = [int((Anatomy(replace(base, sex=sex)).render(grid, vessels=False).hu > -300).sum()) for sex in ("M", "F")]
    assert areas[1] > areas[0] + 200


def test_a_grid_beside_the_body_is_air() -> None:
    grid = Grid((3, 10, 10), (5.0, 3.0, 3.0), (100.0, 900.0, 900.0))
    tissues = chest(0).render(grid)
    assert (tissues.hu == -1000).all() and not tissues.lobes.any() and not tissues.vessels.any()


def test_asked_for_sex_and_arms_are_given() -> None:
    for seed in range(5):
        p = draw_anatomy(np.random.default_rng(seed), sex="F", arms_up=False)
        assert p.sex == "F" and not p.arms_up
