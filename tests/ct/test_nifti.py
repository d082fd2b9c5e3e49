"""NIfTI against SimpleITK's own reading, and everything a file can have wrong."""

from __future__ import annotations

import gzip
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from m2unet.ct import nifti
from m2unet.ct.findings import QualityError
from m2unet.ct.nifti import read_nifti
from m2unet.ct.read import read_raw

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


# --- two statements about one thing ----------------------------------------------------------------------------------


def forms(path: Path, sform: np.ndarray, qform: np.ndarray, codes: tuple[int, int] = (2, 1)) -> Path:
    """A NIfTI file with these two affines, written by nibabel."""
    nib = pytest.importorskip("nibabel")
    image = nib.Nifti1Image(ARRAY.T, None)
    image.set_qform(qform, codes[1])
    image.set_sform(sform, codes[0])
    nib.save(image, path)
    return path


AFFINE = np.array([[-0.7, 0, 0, 11], [0, -0.8, 0, -23.5], [0, 0, 2.5, 70], [0, 0, 0, 1]])


def changed(*, flip: int | None = None, move: float = 0.0, scale: float = 1.0, turn: float = 0.0) -> np.ndarray:
    other = AFFINE.copy()
    if flip is not None:
        other[:, flip] *= -1
    other[:3, :3] = Rotation.from_euler("z", turn, degrees=True).as_matrix() @ other[:3, :3] * scale
    other[0, 3] += move
    return other


@pytest.mark.parametrize(
    ("qform", "said"),
    [
        (changed(flip=0), r"sform \(code 2\): axes run LPS.*qform \(code 1\): axes run RPS.*sform is used"),
        (changed(move=40), "corners up to 40 mm apart"),
        (changed(scale=1.5), "steps 1.05 x 1.2 x 3.75 mm"),
        (changed(turn=30), "LPS turned by 30 degrees"),
    ],
)
def test_forms_that_disagree_are_both_named(tmp_path: Path, qform: np.ndarray, said: str) -> None:
    raw = read_nifti(forms(tmp_path / "a.nii", AFFINE, qform))
    (found,) = raw.findings
    assert (found.code, found.level) == ("contradictory-geometry", "warning") and re.search(said, found.found)
    assert raw.origin_mm == pytest.approx((-11, 23.5, 70)) and np.allclose(raw.direction, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("qform", [AFFINE, changed(move=0.01), changed(turn=0.01)])
def test_forms_that_agree_but_for_rounding(tmp_path: Path, qform: np.ndarray) -> None:
    assert read_nifti(forms(tmp_path / "a.nii", AFFINE, qform)).findings == ()


def test_a_form_that_is_no_frame_is_named(tmp_path: Path) -> None:
    path = forms(tmp_path / "a.nii", AFFINE, AFFINE)
    for name, at, values in (("sform", 280, (float("nan"),) * 4), ("qform", 256, (2.0, 2.0, 2.0))):
        copy = tmp_path / f"{name}.nii"
        shutil.copy(path, copy)
        raw = read_nifti(patch(copy, at, f"<{len(values)}f", *values))
        (found,) = raw.findings
        assert found.code == "contradictory-geometry" and f"the {name} " in found.found
        assert np.allclose(raw.direction, np.eye(3), atol=1e-6)


def test_pixdim_that_disagrees_with_the_sform(tmp_path: Path) -> None:
    path = patch(forms(tmp_path / "a.nii", AFFINE, AFFINE), 252, "<h", 0)
    assert read_nifti(path).findings == ()
    (found,) = read_nifti(patch(path, 80, "<f", 1.4)).findings
    assert found.code == "contradictory-geometry" and "1.4 x 0.8 x 2.5 mm by pixdim" in found.found


@pytest.mark.parametrize(
    ("slope", "intercept", "usable"),
    [
        (0.0, 0.0, True),
        (float("nan"), float("nan"), True),
        (float("nan"), 0.0, True),
        (0.0, -1024.0, False),
        (float("nan"), -1024.0, False),
        (1.0, float("nan"), False),
        (float("inf"), 0.0, False),
        (-1.0, 0.0, False),
    ],
)
def test_slopes_that_readers_take_differently(tmp_path: Path, slope: float, intercept: float, usable: bool) -> None:
    path = patch(write(tmp_path / "a.nii"), 112, "<2f", slope, intercept)
    if usable:
        assert np.array_equal(read_nifti(path).array, ARRAY)
    else:
        with pytest.raises(QualityError, match="bad-rescale: scl_slope is"):
            read_nifti(path)


def test_magic_and_offset_that_contradict_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii")
    for name, at, form, value in (
        ("pair", 344, "4s", b"ni1\0"),
        ("inside", 108, "<f", 0.0),
        ("bits", 72, "<h", 32),
        ("magic", 344, "4s", b"xxxx"),
    ):
        copy = tmp_path / f"{name}.nii"
        shutil.copy(path, copy)
        assert code_of(patch(copy, at, form, value)) == "unreadable", name  # type: ignore[arg-type]


# --- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "scale"), [(1, 1000.0), (2, 1.0), (3, 0.001)])
def test_units_are_obeyed(tmp_path: Path, unit: int, scale: float) -> None:
    nib = pytest.importorskip("nibabel")
    image = nib.Nifti1Image(ARRAY.T, AFFINE @ np.diag([1 / scale] * 3 + [1]))
    image.header["xyzt_units"] = unit
    nib.save(image, tmp_path / "a.nii")
    assert read_nifti(tmp_path / "a.nii").spacing_mm == pytest.approx((2.5, 0.8, 0.7), rel=1e-5)


@pytest.mark.parametrize(("unit", "scale"), [(1, 1.0), (3, 1.0), (2, 0.001), (2, 1000.0)])
def test_wrong_units_are_refused_before_memory_is_taken(
    tmp_path: Path, unit: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    nib = pytest.importorskip("nibabel")
    image = nib.Nifti1Image(ARRAY.T, AFFINE @ np.diag([scale] * 3 + [1]))
    image.header["xyzt_units"] = unit
    nib.save(image, tmp_path / "a.nii")

    def fill(*_: object) -> None:
        raise AssertionError("voxels were read")

    monkeypatch.setattr(nifti, "_fill", fill)
    with pytest.raises(QualityError, match=r"bad-spacing: voxel steps of .* make a scan of .* mm .*NIfTI unit"):
        read_nifti(tmp_path / "a.nii")


def test_centimetres_taken_for_millimetres_are_a_chest_too_narrow(tmp_path: Path) -> None:
    image = sitk.Image(256, 256, 3, sitk.sitkInt16)
    image.SetSpacing((0.14, 0.14, 0.5))
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    with pytest.raises(QualityError, match=r"35.84 x 35.84 x 1.5 mm"):
        read_nifti(tmp_path / "a.nii")


# --- Analyze 7.5 -----------------------------------------------------------------------------------------------------


def analyze(folder: Path, order: str = "<") -> Path:
    nib = pytest.importorskip("nibabel")
    header = nib.AnalyzeHeader(endianness=order)
    image = nib.AnalyzeImage(ARRAY.T, None, header)
    image.header.set_zooms((0.7, 0.8, 2.5))
    nib.save(image, folder / "a.img")
    return folder / "a.img"


@pytest.mark.parametrize("order", ["<", ">"])
def test_analyze_is_read_as_such_with_a_warning(tmp_path: Path, order: str) -> None:
    nib = pytest.importorskip("nibabel")
    path = analyze(tmp_path, order)
    expected = nib.load(path).header.get_base_affine()[:3, :3]  # nibabel's reading of Analyze: LAS
    for name in ("a.img", "a.hdr"):
        raw = read_raw(tmp_path / name)
        assert np.array_equal(raw.array, ARRAY) and raw.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
        assert np.allclose(np.diag([-1, -1, 1]) @ raw.direction, np.sign(expected))
        (found,) = raw.findings
        assert (found.code, found.level) == ("orientation-unknown", "warning") and "left from right" in found.found


def test_analyze_in_other_planes_or_alone_is_refused(tmp_path: Path) -> None:
    path = analyze(tmp_path)
    header = tmp_path / "a.hdr"
    patch(header, 252, "B", 3)
    assert np.allclose(read_nifti(path).direction, np.eye(3))
    patch(header, 252, "B", 1)
    assert code_of(path) == "unreadable"
    header.rename(tmp_path / "alone.nii")
    assert code_of(tmp_path / "alone.nii") == "unreadable"
