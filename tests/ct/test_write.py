"""What is written lies on the input's own grid, voxel for voxel."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from m2unet.ct.read import read_scan
from m2unet.ct.volume import from_source
from m2unet.ct.write import write_mask, write_volume
from m2unet.errors import ScanError
from tests.ct.samples import chest, write_series

FORMATS = (".nii.gz", ".nii", ".mha", ".nrrd")


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_mask_overlays_its_image(tmp_path: Path, ending: str, order: tuple[int, int, int]) -> None:
    direction = np.eye(3)[:, list(order)] * np.array([1, -1, -1])
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 900, (4, 5, 6)).astype(np.int16))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-11, 23, 70))
    image.SetDirection(direction.ravel())
    source = sitk.GetArrayFromImage(image)
    volume = from_source(source, (2.5, 0.8, 0.7), (-11, 23, 70), direction)
    write_mask(volume, volume.array > 0, tmp_path / f"mask{ending}")
    write_volume(volume, tmp_path / f"deep/er/image{ending}")
    mask, copy = (
        sitk.ReadImage(str(tmp_path / f"mask{ending}")),
        sitk.ReadImage(str(tmp_path / f"deep/er/image{ending}")),
    )
    assert np.array_equal(sitk.GetArrayFromImage(mask), source > 0)
    assert np.array_equal(sitk.GetArrayFromImage(copy), source)
    assert mask.GetPixelID() == sitk.sitkUInt8 and copy.GetPixelID() == sitk.sitkInt16
    for written in (mask, copy):
        assert written.GetSpacing() == pytest.approx(image.GetSpacing())
        assert written.GetOrigin() == pytest.approx(image.GetOrigin())
        assert np.allclose(written.GetDirection(), image.GetDirection())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([f"mask{ending}", "deep"])


@pytest.mark.parametrize("ending", FORMATS)
def test_a_tilted_stack_keeps_its_slant(tmp_path: Path, ending: str) -> None:
    angle = np.deg2rad(18.0)
    array = chest()
    axes = [1, 0, 0, 0, np.cos(angle), -np.sin(angle)]
    write_series(tmp_path / "series", array, orientation=axes, step=(0, 0, 10))
    volume = read_scan(tmp_path / "series")
    write_volume(volume, tmp_path / f"copy{ending}")
    copy = read_scan(tmp_path / f"copy{ending}")
    assert np.array_equal(copy.array, array)
    assert np.allclose(copy.affine, volume.affine, atol=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"copy{ending}", "series"]
    if ending.startswith(".nii"):
        nib = pytest.importorskip("nibabel")
        affine = np.diag([-1, -1, 1, 1]) @ nib.load(tmp_path / f"copy{ending}").affine
        assert np.allclose(affine, volume.affine, atol=1e-4)


def test_unknown_endings_and_other_grids(tmp_path: Path) -> None:
    volume = from_source(np.zeros((2, 3, 4), np.int16), (1.0, 1.0, 1.0))
    with pytest.raises(ScanError, match=r"\.nii\.gz"):
        write_volume(volume, tmp_path / "a.png")
    with pytest.raises(ScanError, match="grid"):
        write_mask(volume, np.zeros((2, 3, 5), np.uint8), tmp_path / "a.nii")
    assert list(tmp_path.iterdir()) == []
