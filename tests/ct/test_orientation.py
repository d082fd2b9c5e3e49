"""A body that does not lie as its header says is noticed, and one that does gives no alarm."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from m2unet.ct.checks import check_scan
from m2unet.ct.coarse import CoarseGrid
from m2unet.ct.orientation import check_orientation, find_axes
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume, from_source
from tests.ct.samples import chest
from tests.ct.turned import MIRRORED, TRUE, phantom, turned, turns


def said(volume: Volume) -> str | None:
    grid = CoarseGrid.fitting(volume.shape, volume.spacing_mm)
    found = check_orientation(grid, grid.average(volume.array))
    assert found is None or (found.code, found.level) == ("orientation-doubtful", "warning")
    return None if found is None else found.found


@pytest.mark.parametrize("patient", [0, 3])
def test_every_turn_and_flip_of_a_phantom_is_noticed(patient: int) -> None:
    volume = phantom(patient).volume
    assert [turn for turn in turns() if said(turned(volume, turn)) is None] == [TRUE]


@pytest.mark.real
def test_every_turn_and_flip_of_a_real_scan_is_noticed(real_data: Path) -> None:
    volume = read_scan(real_data / "cip" / "ct-64.nrrd")
    assert volume.findings == ()
    assert [turn for turn in turns() if said(turned(volume, turn)) is None] == [TRUE]


@pytest.mark.real
def test_a_whole_real_scan(nlst: Volume) -> None:
    assert nlst.findings == () or {f.level for f in nlst.findings} == {"note"}
    for turn in (
        (TRUE[0], (1, -1, 1)),
        (TRUE[0], (-1, 1, 1)),
        (TRUE[0], (1, -1, -1)),
        ((1, 0, 2), (1, 1, 1)),
        MIRRORED,
    ):
        assert said(turned(nlst, turn)) is not None, turn


def test_what_is_wrong_is_named() -> None:
    volume = phantom().volume
    front = said(turned(volume, ((0, 1, 2), (1, -1, 1))))
    assert front == "the spine lies where the header says front (left and right of the body are exchanged, too)"
    half = said(turned(volume, ((0, 1, 2), (1, -1, -1))))
    assert half == "the spine lies where the header says front (turned as a whole)"
    assert "the head end lies where the header says feet" in str(said(turned(volume, ((0, 1, 2), (-1, 1, 1)))))
    quarter = str(said(turned(volume, ((1, 0, 2), (1, 1, 1)))))
    assert "the head end lies where the header says back" in quarter
    side = str(said(turned(volume, ((0, 2, 1), (1, 1, 1)))))
    assert "side by side from front to back" in side
    assert "dextrocardia" in str(said(turned(volume, MIRRORED)))


def test_the_table_says_nothing_a_prone_patient_is_no_alarm() -> None:
    volume = phantom().volume
    array = volume.array.copy()
    place = np.flatnonzero((array > -500).any(axis=(0, 2)))
    array[:, max(0, place[0] - 4) : max(0, place[0] - 4) + 3] = 400  # a dense table in front, as under a prone patient
    assert said(from_source(array, volume.spacing_mm)) is None


@pytest.mark.parametrize("lobes", [(3,), (5,), (2, 3), (3, 5), (2, 3, 5), (1, 2, 3), (4, 5)])
def test_dense_lobes_are_no_alarm(lobes: tuple[int, ...]) -> None:
    scan = phantom()
    array = scan.volume.array.copy()
    array[np.isin(scan.lobes, lobes)] = 30
    assert said(from_source(array, scan.volume.spacing_mm)) is None


def test_what_cannot_be_read_is_left_open() -> None:
    plain = chest((40, 96, 112), (5.0, 4.0, 4.0))  # two ellipsoids without bone or heart
    for array in (plain, plain[::-1], plain[:, ::-1], plain[:, :, ::-1]):
        assert said(from_source(np.ascontiguousarray(array), (5.0, 4.0, 4.0))) is None
    scan = phantom().volume
    excerpt = from_source(scan.array[8:14].copy(), scan.spacing_mm)
    assert said(excerpt) is None
    blurred = from_source(np.zeros((40, 96, 112), np.int16), (5.0, 4.0, 4.0))
    grid = CoarseGrid.fitting(blurred.shape, blurred.spacing_mm)
    assert find_axes(grid, grid.average(blurred.array)) is None


def test_noise_and_blur_change_nothing() -> None:
    volume = phantom().volume
    noisy = volume.array + np.random.default_rng(0).normal(0, 100, volume.shape)
    assert said(from_source(noisy.astype(np.int16), volume.spacing_mm)) is None
    soft = ndimage.gaussian_filter(volume.array.astype(np.float32), (0, 2, 2))
    assert said(from_source(soft.astype(np.int16), volume.spacing_mm)) is None
    assert said(turned(from_source(soft.astype(np.int16), volume.spacing_mm), MIRRORED)) is not None


def test_reading_and_checking_say_it_alike(tmp_path: Path) -> None:
    volume = turned(phantom().volume, ((0, 1, 2), (1, -1, 1)))
    dz, dy, dx = volume.spacing_mm
    affine = np.diag([-dx, -dy, dz, 1.0])
    nib.save(nib.Nifti1Image(volume.array.transpose(2, 1, 0), affine), tmp_path / "a.nii.gz")
    checked, read = check_scan(tmp_path / "a.nii.gz"), read_scan(tmp_path / "a.nii.gz")
    assert "orientation-doubtful" in {f.code for f in checked.findings}
    assert {f.code for f in checked.findings} == {f.code for f in read.findings}
