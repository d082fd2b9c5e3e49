"""The twenty regions: every voxel in one, equal shares, and each where its name says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from m2unet.anatomy import LOBES
from m2unet.quantify.regions import REGIONS, _quantiles, count_regions, region_map

SPACING = (2.0, 1.5, 1.5)
SHARES = (0.25, 0.5, 0.75)
NAMES = {region.name: region for region in REGIONS}


def ellipsoid_lungs() -> NDArray[np.uint8]:
    """Two ellipsoids parted by slanted planes into five lobes, [z, y, x]."""
    z, y, x = np.ogrid[-1:1:60j, -1:1:64j, -1:1:80j]
    mask = np.zeros((60, 64, 80), np.uint8)
    right, left = ((((x - c) / 0.4) ** 2 + (y / 0.85) ** 2 + (z / 0.9) ** 2) < 1 for c in (-0.5, 0.5))
    upper = z - 0.7 * y > 0
    mask[right & upper] = 1
    mask[right & upper & (z < 0)] = 2
    mask[right & ~upper] = 3
    mask[left & upper] = 4
    mask[left & ~upper] = 5
    return mask


@pytest.fixture(scope="module")
def divided() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    mask = ellipsoid_lungs()
    return mask, region_map(mask, SPACING)


def centre(regions: NDArray[np.uint8], name: str) -> NDArray[np.float64]:
    """Mean (z, y, x) of a region."""
    return np.argwhere(regions == NAMES[name].code).mean(axis=0)


def test_the_table_is_yangs() -> None:
    assert [region.code for region in REGIONS] == list(range(1, 21))
    assert len(NAMES) == 20
    for side in ("right", "left"):
        assert [int(r.segment[1:]) for r in REGIONS if r.side == side] == list(range(1, 11))
    assert {lobe: sum(r.lobe == lobe for r in REGIONS) for lobe in ("RUL", "RML", "RLL", "LUL", "LLL")} == {
        "RUL": 3,
        "RML": 2,
        "RLL": 5,
        "LUL": 5,
        "LLL": 5,
    }


def test_every_voxel_of_a_lobe_is_in_one_of_its_regions(divided: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    mask, regions = divided
    owner = np.zeros(21, np.uint8)
    for region in REGIONS:
        owner[region.code] = next(lobe.code for lobe in LOBES if lobe.abbreviation == region.lobe)
    np.testing.assert_array_equal(owner[regions], mask)


def test_a_lobes_regions_share_it_equally(divided: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    mask, regions = divided
    for lobe in LOBES:
        parts = [r.code for r in REGIONS if r.lobe == lobe.abbreviation]
        shares = np.array([(regions == code).sum() for code in parts]) / (mask == lobe.code).sum()
        np.testing.assert_allclose(shares, 1 / len(parts), atol=0.03)


@pytest.mark.parametrize("side", ["right", "left"])
def test_each_region_lies_where_its_name_says(divided: tuple[NDArray[np.uint8], NDArray[np.uint8]], side: str) -> None:
    _, regions = divided
    at = {name.split(" ", 1)[1]: centre(regions, name) for name in NAMES if name.startswith(side)}
    outward = -1 if side == "right" else 1
    up, back, out = (lambda n: at[n][0]), (lambda n: at[n][1]), (lambda n: at[n][2] * outward)
    assert up("apical") > max(up("posterior"), up("anterior"))
    assert back("posterior") > back("anterior")
    basal = [f"{name} basal" for name in ("medial", "anterior", "lateral", "posterior")]
    assert up("superior") > max(up(name) for name in basal)
    assert max(basal, key=back) == "posterior basal" and min(basal, key=back) == "anterior basal"
    assert max(basal, key=out) == "lateral basal" and min(basal, key=out) == "medial basal"
    if side == "right":
        assert out("lateral") > out("medial")
    else:
        assert up("anterior") > up("superior lingular") > up("inferior lingular")


def test_an_absent_lobe_has_no_region_and_a_single_voxel_is_in_one() -> None:
    mask = np.zeros((3, 3, 3), np.uint8)
    assert not region_map(mask, SPACING).any()
    mask[1, 1, 1] = 3
    regions = region_map(mask, SPACING)
    assert np.count_nonzero(regions) == 1 and NAMES["right superior"].code <= regions[1, 1, 1] <= 10


def test_the_split_does_not_depend_on_the_spacing(divided: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    mask, regions = divided
    thick = region_map(mask[::3], (SPACING[0] * 3, *SPACING[1:]))
    assert (thick == regions[::3])[mask[::3] > 0].mean() > 0.9


def test_regions_are_counted_without_a_map(divided: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    mask, regions = divided
    opacity = (np.random.default_rng(0).random(mask.shape) < 0.2).astype(np.uint8)
    total, opaque = count_regions(mask, opacity, SPACING)
    np.testing.assert_array_equal(total[1:], np.bincount(regions.ravel(), minlength=21)[1:])
    np.testing.assert_array_equal(opaque[1:], np.bincount(regions[opacity > 0], minlength=21)[1:])


def test_quantiles_of_repeated_values_are_numpys() -> None:
    rng = np.random.default_rng(1)
    for size in (1, 2, 3, 10, 101):
        values, counts = rng.normal(size=size), rng.integers(1, 5, size)
        expected = np.quantile(np.repeat(values, counts), SHARES)
        assert _quantiles(values, counts, SHARES) == expected.tolist()


@pytest.mark.real
def test_real_lobes_are_divided_in_equal_parts(real_data: Path) -> None:
    """On a real lobe map the cuts still give every region a fair share."""
    sitk = pytest.importorskip("SimpleITK")
    folder = real_data / "lobe-maps-small"
    paths = sorted(p for p in folder.iterdir() if p.suffix in {".nrrd", ".gz", ".mha", ".npz"})[:3]
    assert paths
    for path in paths:
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image).astype(np.uint8)
        regions = region_map(array, image.GetSpacing()[::-1])
        for lobe in LOBES:
            total = (array == lobe.code).sum()
            parts = [r.code for r in REGIONS if r.lobe == lobe.abbreviation]
            shares = [(regions == code).sum() / total for code in parts]
            assert min(shares) > 0.6 / len(parts) and max(shares) < 1.5 / len(parts)
