"""Features of a scan worked out by hand."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from numpy.typing import NDArray

from m2unet.handcrafted.features import (
    FEATURES,
    Measured,
    feature_list_csv,
    feature_matrix,
    features_csv,
    measure,
)
from m2unet.quantify.opacity import OpacityConfig

SPACING = (2.0, 2.0, 2.0)
VOXEL_ML = 0.008


@pytest.fixture(scope="module")
def blocks() -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Two lungs as blocks of 40 x 40 x 20 voxels: right upper over right lower lobe, left upper alone.

    The lower half of the right lower lobe is opaque: -600 HU in front, -100 HU behind.
    """
    array = np.full((44, 44, 50), 40, dtype=np.int16)
    mask = np.zeros(array.shape, dtype=np.uint8)
    mask[22:42, 2:42, 2:22] = 1
    mask[2:22, 2:42, 2:22] = 3
    mask[2:42, 2:42, 28:48] = 4
    array[mask > 0] = -850
    array[2:12, 2:22, 2:22] = -600
    array[2:12, 22:42, 2:22] = -100
    return array, mask


@pytest.fixture(scope="module")
def found(blocks: tuple[NDArray[np.int16], NDArray[np.uint8]]) -> Measured:
    array, mask = blocks
    settings = OpacityConfig(smooth_mm=0, vote_mm=1.0, rim_mm=0, vessel_mm=1.0)
    return measure(array, mask, SPACING, config=settings)


def test_volumes_and_shares_by_hand(found: Measured) -> None:
    lobe = 20 * 40 * 20 * VOXEL_ML
    values = found.features
    assert values["RLL.volume_ml"] == pytest.approx(lobe)
    assert values["right.volume_ml"] == pytest.approx(2 * lobe)
    assert values["lungs.volume_ml"] == pytest.approx(4 * lobe)
    # half of the lower lobe is opaque, an eighth of both lungs; edges may differ by a layer of voxels
    assert values["RLL.opacity_percent"] == pytest.approx(50, abs=3)
    assert values["right.opacity_percent"] == pytest.approx(25, abs=1.5)
    assert values["lungs.opacity_ml"] == pytest.approx(lobe / 2, rel=0.06)
    assert values["RUL.opacity_ml"] == 0 and values["left.opacity_percent"] == 0
    assert values["RLL.consolidation_percent"] == pytest.approx(25, abs=3)
    assert values["LUL.mean_hu"] == pytest.approx(-850)


def test_hu_bands_of_opacity(found: Measured) -> None:
    values = found.features
    bands = ("below_-700_hu", "-700_to_-500_hu", "-500_to_-300_hu", "from_-300_hu")
    for part in ("right", "left", "lungs"):
        parts = [values[f"{part}.opacity_{band}_ml"] for band in bands]
        assert sum(v for v in parts if v is not None) == pytest.approx(values[f"{part}.opacity_ml"])
    quarter = 10 * 20 * 20 * VOXEL_ML
    assert values["right.opacity_-700_to_-500_hu_ml"] == pytest.approx(quarter, rel=0.1)
    assert values["right.opacity_from_-300_hu_ml"] == pytest.approx(quarter, rel=0.1)
    assert values["right.opacity_-500_to_-300_hu_ml"] == 0


def test_absent_lobes_have_no_value(found: Measured) -> None:
    assert found.features["LLL.volume_ml"] is None and found.features["RML.opacity_percent"] is None
    assert found.scored == 3 + 5 + 5  # regions of RUL, RLL, LUL
    matrix = feature_matrix([found])
    names = [feature.name for feature in FEATURES]
    assert np.isnan(matrix[0, names.index("LLL.volume_ml")])
    assert not np.isnan(matrix[0, names.index("RLL.volume_ml")])


def test_csv_has_names_and_units(found: Measured) -> None:
    rows = list(csv.DictReader(io.StringIO(features_csv({"a": found}))))
    assert rows[0]["scan_id"] == "a" and rows[0]["LLL.volume_ml [ml]"] == ""
    assert float(rows[0]["RLL.opacity_percent [%]"]) == pytest.approx(found.features["RLL.opacity_percent"], rel=1e-5)
    listed = list(csv.DictReader(io.StringIO(feature_list_csv())))
    assert [row["name"] for row in listed] == [feature.name for feature in FEATURES]
    assert {row["unit"] for row in listed} == {"ml", "%", "HU"}
    assert len({row["meaning"] for row in listed}) == len(listed) == len(found.features)
