"""NIfTI against SimpleITK's own reading, and everything a file can have wrong."""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from m2unet.ct.findings import QualityError
from m2unet.ct.nifti import read_nifti

ARRAY = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)


def write(path: Path, array: np.ndarray = ARRAY, degrees: tuple[float, float] = (0, 0)) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-11.0, 23.5, 70.25))
    image.SetDirection(Rotation.from_euler("zx", degrees, degrees=True).as_matrix().ravel())
    sitk.WriteImage(image, str(path))
    return path


def patch(path: Path, at: int, form: str, *values: float) -> Path:
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, at, *values)
    path.write_bytes(data)
    return path


def code_of(path: Path) -> str:
    with pytest.raises(QualityError) as caught:
        read_nifti(path)
    (found,) = caught.value.findings
    return found.code


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_every_type_as_simpleitk_reads_it(tmp_path: Path, kind: str, ending: str) -> None:
    path = write(tmp_path / f"a{ending}", (ARRAY % 100).astype(kind), (20, 10))
    raw, image = read_nifti(path), sitk.ReadImage(str(path))
    assert np.array_equal(raw.array, sitk.GetArrayFromImage(image))
    assert raw.spacing_mm == pytest.approx(image.GetSpacing()[::-1])
    assert raw.origin_mm == pytest.approx(image.GetOrigin(), abs=1e-4)
    assert np.allclose(raw.direction.ravel(), image.GetDirection(), atol=1e-5)
    assert raw.stored_bits == np.dtype(kind).itemsize * 8


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_orientation_by_quaternion_alone(tmp_path: Path, flip: float) -> None:
    path = patch(write(tmp_path / "a.nii", degrees=(30, -15)), 254, "<h", 0)  # sform_code
    patch(path, 76, "<f", flip)
    raw, image = read_nifti(path), sitk.ReadImage(str(path))
    assert np.allclose(raw.direction.ravel(), image.GetDirection(), atol=1e-5)
    assert raw.origin_mm == pytest.approx(image.GetOrigin(), abs=1e-4)


def test_without_orientation_there_is_a_warning(tmp_path: Path) -> None:
    path = patch(write(tmp_path / "a.nii"), 252, "<hh", 0, 0)
    raw = read_nifti(path)
    assert [f.code for f in raw.findings] == ["orientation-unknown"]
    assert raw.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert np.allclose(raw.direction, np.eye(3))


def test_rescaled_values(tmp_path: Path) -> None:
    path = patch(write(tmp_path / "a.nii"), 112, "<2f", 0.5, -1024)
    assert np.allclose(read_nifti(path).array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    assert np.allclose(read_nifti(path).array, ARRAY * 0.5 - 1024)


def test_big_endian_metres_and_a_pair_of_files(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    affine = np.diag([-0.0007, -0.0008, 0.0025, 1])
    header = nib.Nifti1Header(endianness=">")
    header.set_xyzt_units("meter")
    image = nib.Nifti1Pair(ARRAY.T, affine, header)
    image.set_sform(affine, 1)
    nib.save(image, tmp_path / "a.img")
    for name in ("a.img", "a.hdr"):
        raw = read_nifti(tmp_path / name)
        assert np.array_equal(raw.array, ARRAY)
        assert raw.spacing_mm == pytest.approx((2.5, 0.8, 0.7), rel=1e-5)
        assert np.allclose(raw.direction, np.eye(3))
    (tmp_path / "a.img").unlink()
    assert code_of(tmp_path / "a.hdr") == "unreadable"


def test_nifti_2_and_a_sheared_affine(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    affine = np.array([[-0.7, 0, 0, 11], [0, -0.8, 0.6, -23.5], [0, 0, 2.5, 70], [0, 0, 0, 1]])
    nib.save(nib.Nifti2Image(ARRAY.T, affine), tmp_path / "a.nii")
    raw = read_nifti(tmp_path / "a.nii")
    assert np.array_equal(raw.array, ARRAY)
    to_lps = np.diag([-1, -1, 1, 1])
    steps = raw.direction * np.asarray(raw.spacing_mm[::-1])
    assert np.allclose(steps, (to_lps @ affine)[:3, :3])
    assert raw.origin_mm == pytest.approx((to_lps @ affine)[:3, 3])


def test_trailing_axes_of_one_are_taken_away(tmp_path: Path) -> None:
    path = patch(write(tmp_path / "a.nii"), 40, "<8h", 5, 6, 5, 4, 1, 1, 1, 1)
    assert np.array_equal(read_nifti(path).array, ARRAY)


@pytest.mark.parametrize(
    ("dims", "code"),
    [
        ((4, 6, 5, 2, 2, 1, 1, 1), "dimensions"),
        ((3, 30000, 30000, 30000, 1, 1, 1, 1), "too-large"),
        ((2, 6, 5, 1, 1, 1, 1, 1), "too-few-slices"),
        ((3, 6, 5, -4, 1, 1, 1, 1), "unreadable"),
        ((9, 6, 5, 4, 1, 1, 1, 1), "unreadable"),
        ((3, 6, 5, 40, 1, 1, 1, 1), "truncated"),
    ],
)
def test_sizes_that_are_no_volume(tmp_path: Path, dims: tuple[int, ...], code: str) -> None:
    assert code_of(patch(write(tmp_path / "a.nii"), 40, "<8h", *dims)) == code


def test_terabytes_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = patch(write(tmp_path / "a.nii"), 40, "<8h", 7, *[32767] * 7)
    assert code_of(path) == "too-large"


def test_a_gzip_bomb_is_read_no_further_than_declared(tmp_path: Path) -> None:
    data = write(tmp_path / "a.nii").read_bytes()
    with gzip.open(tmp_path / "bomb.nii.gz", "wb", compresslevel=9) as stream:
        stream.write(data)
        for _ in range(64):
            stream.write(bytes(1 << 20))
    assert np.array_equal(read_nifti(tmp_path / "bomb.nii.gz").array, ARRAY)


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.95])
def test_truncated_gzip(tmp_path: Path, keep: float) -> None:
    array = np.random.default_rng(0).integers(-1000, 1000, (20, 64, 64)).astype(np.int16)
    data = write(tmp_path / "a.nii.gz", array).read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(data[: int(len(data) * keep)])
    assert code_of(tmp_path / "b.nii.gz") == "truncated"


def test_corrupted_gzip(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(-1000, 1000, (20, 64, 64)).astype(np.int16)
    data = bytearray(write(tmp_path / "a.nii.gz", array).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    (tmp_path / "b.nii.gz").write_bytes(data)
    with pytest.raises(QualityError):
        read_nifti(tmp_path / "b.nii.gz")


def test_headers_that_are_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii")
    short = tmp_path / "short.nii"
    short.write_bytes(path.read_bytes()[:200])
    assert code_of(short) == "truncated"
    for name, at, form, value, code in (
        ("type", 70, "<h", 128, "dimensions"),  # RGB
        ("offset", 108, "<f", -5.0, "unreadable"),
        ("far", 108, "<f", 1e6, "truncated"),
        ("step", 280, "<f", float("nan"), "bad-spacing"),
    ):
        copy = tmp_path / f"{name}.nii"
        shutil.copy(path, copy)
        patch(copy, at, form, value)
        if name == "step":  # neither a usable affine nor a usable quaternion
            patch(copy, 256, "<3f", float("nan"), 0, 0)
        assert code_of(copy) == code, name


@pytest.mark.parametrize("step", [1e-20, 1e-4, 1e5])
def test_steps_of_no_possible_size_are_refused(tmp_path: Path, step: float) -> None:
    path = patch(write(tmp_path / "a.nii"), 252, "<hh", 1, 0)
    patch(path, 80, "<f", step)
    assert code_of(path) == "bad-spacing"


def test_a_flat_affine_is_refused(tmp_path: Path) -> None:
    path = patch(write(tmp_path / "a.nii"), 252, "<hh", 1, 0)
    patch(path, 80, "<f", 0.0)
    assert code_of(path) == "bad-spacing"
