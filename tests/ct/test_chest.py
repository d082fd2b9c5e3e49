"""Slices out of order, lost voxel sizes, next to no lung, lung on one side: what is no chest as given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from m2unet.ct.quality import check_anatomy
from m2unet.ct.read import read_scan
from m2unet.ct.volume import from_source
from tests.ct.samples import chest
from tests.ct.turned import phantom

SHAPE, SPACING = (40, 96, 112), (5.0, 4.0, 4.0)


def found(array: NDArray[np.int16], spacing_mm: tuple[float, float, float] = SPACING) -> dict[str, str]:
    return {f.code: f.found for f in check_anatomy(from_source(np.ascontiguousarray(array), spacing_mm)).findings}


def test_a_chest_in_order() -> None:
    assert found(chest(SHAPE, SPACING)) == {}


def test_slices_out_of_order() -> None:
    volume = phantom().volume
    assert found(volume.array, volume.spacing_mm) == {}
    mixed = volume.array[np.random.default_rng(1).permutation(len(volume.array))]
    assert "out of order" in found(mixed, volume.spacing_mm)["chest-uncertain"]


def test_two_stacks_in_one() -> None:
    volume = phantom().volume
    count = len(volume.array)
    twice = np.concatenate([volume.array[: count // 2 + 7], volume.array[count // 2 - 7 :]])
    assert "at 1 place(s)" in found(twice, volume.spacing_mm)["chest-uncertain"]


def test_air_on_one_side_only() -> None:
    array = chest(SHAPE, SPACING)
    array[:, 20:75, 58:100][array[:, 20:75, 58:100] < -600] = 40
    assert found(array)["chest-uncertain"] == "air-filled lung on the right side only"


def test_next_to_no_lung() -> None:
    """Two tubes of lung-like air in a trunk, as bowel with contents."""
    array = chest(SHAPE, SPACING)
    z, y, x = np.indices(SHAPE)
    solid = np.where(array < -600, np.where(y > 85, array, 40), array)
    solid[:, :15], solid[:, :, :10], solid[:, :, -10:] = array[:, :15], array[:, :, :10], array[:, :, -10:]
    for side in (44, 68):
        tube = ((y - 44) * 4) ** 2 + ((x - side) * 4) ** 2 < 18**2
        solid[tube & (np.abs(z - 20) < 12)] = -700
    said = found(solid.astype(np.int16)).get("chest-uncertain")
    assert said is not None and "ml of air-filled lung" in said


@pytest.mark.parametrize(
    ("spacing", "what"),
    [
        ((1.0, 1.0, 1.0), "voxel sizes look wrong"),  # lost: a chest of 112 x 96 x 40 mm
        ((5.0, 12.0, 12.0), "the body is"),
        ((1.0, 4.0, 4.0), "mm high"),
        ((15.0, 4.0, 4.0), "mm high"),
    ],
)
def test_voxel_sizes_that_make_no_chest(spacing: tuple[float, float, float], what: str) -> None:
    assert what in found(chest(SHAPE, SPACING), spacing)["orientation-doubtful"]


@pytest.mark.real
def test_a_real_scan_whose_voxel_sizes_were_lost(real_data: Path) -> None:
    array = read_scan(real_data / "cip" / "ct-64.nrrd").array
    assert "voxel sizes look wrong" in found(array, (1.0, 1.0, 1.0))["orientation-doubtful"]
    assert "voxel sizes look wrong" in found(array, (1.0, 4.17, 4.17))["orientation-doubtful"]


@pytest.mark.real
def test_an_excerpt_of_two_slices_stays_usable(real_data: Path) -> None:
    volume = read_scan(real_data / "cip" / "crop_ct_2slices.nii.gz")
    assert {f.code for f in volume.findings} == {"too-few-slices", "lungs-cut-off"}
