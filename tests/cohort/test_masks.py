"""Lobe masks: on the image's grid whatever the axis order, in our codes whatever the tool."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from m2unet.anatomy import CODE_MAPS, CodeSystem
from m2unet.cohort.lobe_codes import recode, recognised
from m2unet.cohort.masks import read_lobe_mask
from m2unet.ct.read import read_raw
from m2unet.ct.volume import Volume, from_source
from m2unet.errors import ScanError


def volume(shape: tuple[int, int, int] = (4, 6, 5)) -> Volume:
    return from_source(np.zeros(shape, dtype=np.int16), (2.5, 0.7, 0.8), (-10.0, 20.0, -300.0))


def image(array: NDArray[np.generic], like: Volume) -> SimpleITK.Image:
    result = SimpleITK.GetImageFromArray(array)
    result.SetSpacing(like.spacing_mm[::-1])
    result.SetOrigin(like.origin_mm)
    return result


@pytest.fixture
def codes() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 7, (4, 6, 5)).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("order", ["LPS", "RAS", "PIR", "SLA"])
def test_a_mask_in_another_axis_order_lands_on_the_image(
    tmp_path: Path, codes: NDArray[np.uint8], suffix: str, order: str
) -> None:
    path = tmp_path / f"mask{suffix}"
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image(codes, volume()), order), str(path))
    assert np.array_equal(read_lobe_mask(path, volume()), codes)


def test_nibabel_agrees_on_where_the_mask_lies(tmp_path: Path, codes: NDArray[np.uint8]) -> None:
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])  # nibabel's world is RAS, ours LPS
    nibabel.save(nibabel.Nifti1Image(codes.T.astype(np.float32), flip @ volume().affine), tmp_path / "m.nii")
    assert np.array_equal(read_lobe_mask(tmp_path / "m.nii", volume()), codes)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda i: i.SetSpacing((0.8, 0.7, 3.0)), r"spacing .*\(3, 0\.7, 0\.8\).*\(2\.5, 0\.7, 0\.8\)"),
        (lambda i: i.SetOrigin((-10.0, 20.0, -295.0)), r"origin .*-295.*-300"),
        (lambda i: i.SetDirection((0.995, -0.0998, 0, 0.0998, 0.995, 0, 0, 0, 1)), "direction"),
    ],
)
def test_another_grid_is_refused(tmp_path: Path, codes: NDArray[np.uint8], change: object, said: str) -> None:
    mask = image(codes, volume())
    change(mask)  # type: ignore[operator]
    SimpleITK.WriteImage(mask, str(tmp_path / "m.nrrd"))
    with pytest.raises(ScanError, match=said):
        read_lobe_mask(tmp_path / "m.nrrd", volume())


def test_another_shape_is_refused(tmp_path: Path, codes: NDArray[np.uint8]) -> None:
    SimpleITK.WriteImage(image(codes[:3], volume()), str(tmp_path / "m.nrrd"))
    with pytest.raises(ScanError, match=r"\(3, 6, 5\).*\(4, 6, 5\)"):
        read_lobe_mask(tmp_path / "m.nrrd", volume())


def test_rounding_in_the_header_is_forgiven(tmp_path: Path, codes: NDArray[np.uint8]) -> None:
    mask = image(codes, volume())
    mask.SetOrigin((-10.003, 20.002, -299.999))
    SimpleITK.WriteImage(mask, str(tmp_path / "m.nrrd"))
    assert np.array_equal(read_lobe_mask(tmp_path / "m.nrrd", volume()), codes)


def test_files_that_are_no_mask(tmp_path: Path, codes: NDArray[np.uint8]) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing")
    SimpleITK.WriteImage(image(codes * 0.3, volume()), str(tmp_path / "soft.nrrd"))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(codes[0]), str(tmp_path / "flat.nrrd"))
    for name, said in (
        ("gone.nii", "not-found"),
        ("bad.nii.gz", "read"),
        ("soft.nrrd", "fractions"),
        ("flat.nrrd", "cannot be read|not one 3-D mask|axes"),
    ):
        with pytest.raises(ScanError, match=said):
            read_lobe_mask(tmp_path / name, volume())


def values(*numbers: int) -> NDArray[np.int16]:
    return np.array(numbers, dtype=np.int16)


@pytest.mark.parametrize(
    "system, theirs, ours",
    [
        ("m2unet", [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6]),
        ("lungmask", [0, 1, 2, 3, 4, 5], [0, 4, 5, 1, 2, 3]),
        ("totalsegmentator-v2", [0, 1, 10, 11, 12, 13, 14, 15, 117], [0, 0, 4, 5, 1, 2, 3, 0, 0]),
        ("totalsegmentator-v1", [12, 13, 14, 15, 16, 17], [0, 4, 5, 1, 2, 3]),
        ("lola11", [10, 11, 20, 21, 22], [4, 5, 1, 2, 3]),
        ("luna16", [0, 1, 4, 5, 6, 7, 8, 512, 513, 516, 520], [0, 0, 1, 2, 3, 4, 5, 6, 6, 6, 6]),
    ],
)
def test_other_tools_codes(system: str, theirs: list[int], ours: list[int]) -> None:
    result = recode(values(*theirs), system, name="m")  # type: ignore[arg-type]
    assert result.dtype == np.uint8 and result.tolist() == ours


def test_unknown_codes_are_named_with_the_tool_they_fit() -> None:
    with pytest.raises(ScanError) as caught:
        recode(values(0, 10, 11, 20, 21, 22), "m2unet", name="m.nii")
    assert caught.value.found == "10, 11, 20, 21, 22"
    assert "lobe_codes='lola11'" in str(caught.value)
    with pytest.raises(ScanError, match="totalsegmentator-v2"):
        recode(values(0, 10, 11, 12, 13, 14, 99), "m2unet", name="m.nii")
    with pytest.raises(ScanError, match="recode the mask"):
        recode(values(0, -3), "m2unet", name="m.nii")
    with pytest.raises(ScanError, match="6"):
        recode(values(6), "lungmask", name="m.nii")
    with pytest.raises(ScanError, match="one of m2unet, lungmask"):
        recode(values(0), "other", name="m.nii")  # type: ignore[arg-type]


def test_real_lobe_maps(real_data: Path) -> None:
    path = next((real_data / "lobe-maps").glob("*.nrrd"))
    source = SimpleITK.ReadImage(str(path))
    raw = SimpleITK.GetArrayFromImage(source)
    z, y, x = source.GetSpacing()[::-1]
    like = from_source(
        np.zeros(raw.shape, np.int16), (z, y, x), source.GetOrigin(), np.reshape(source.GetDirection(), (3, 3))
    )
    mask = like.to_source(read_lobe_mask(path, like, "luna16"))
    assert np.array_equal(mask == 6, raw >> 8 == 2)
    for theirs, ours in ((4, 1), (5, 2), (6, 3), (7, 4), (8, 5)):
        assert np.array_equal(mask == ours, raw == theirs)


def test_pixels_nobody_decided_pass_only_where_they_are_asked_for(tmp_path: Path, codes: NDArray[np.uint8]) -> None:
    codes[0, :2] = 255
    SimpleITK.WriteImage(image(codes, volume()), str(tmp_path / "m.nii.gz"))
    assert np.array_equal(read_lobe_mask(tmp_path / "m.nii.gz", volume(), undecided=True), codes)
    with pytest.raises(ScanError, match="255"):
        read_lobe_mask(tmp_path / "m.nii.gz", volume())


def chest() -> NDArray[np.int16]:
    """Five boxes where lobes lie: z towards the head, y to the back, x to the left."""
    mask = np.zeros((8, 8, 8), dtype=np.int16)
    mask[4:, :, :3], mask[:4, :4, :3], mask[:4, 4:, :3] = 1, 2, 3
    mask[4:, :, 5:], mask[:4, :, 5:] = 4, 5
    return mask


@pytest.mark.parametrize("system", [system for system in CODE_MAPS if system != "luna16"])
def test_codes_are_recognised_by_values_and_places(system: CodeSystem) -> None:
    theirs = {ours: value for value, ours in CODE_MAPS[system].items()}
    mask = np.vectorize(lambda code: theirs.get(code, 0), otypes=[np.int16])(chest())
    if system.startswith("totalsegmentator"):
        mask[0, 0, 4] = 52  # another organ
    assert recognised(mask, name="m") == system
    assert np.array_equal(recode(mask, system, name="m"), chest())


def test_lungmask_codes_are_not_taken_for_ours_though_the_values_are_the_same(tmp_path: Path) -> None:
    theirs = {ours: value for value, ours in CODE_MAPS["lungmask"].items()}
    mask = np.vectorize(lambda code: theirs.get(code, 0), otypes=[np.int16])(chest())
    scan = volume((8, 8, 8))
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image(mask, scan), "RAS"), str(tmp_path / "m.nii.gz"))
    assert np.array_equal(read_lobe_mask(tmp_path / "m.nii.gz", scan, "auto"), chest())


def test_a_mirrored_patient_and_a_single_lobe_keep_our_codes() -> None:
    assert recognised(np.ascontiguousarray(chest()[:, :, ::-1]), name="m") == "m2unet"
    assert recognised(np.where(chest() == 4, chest(), np.int16(0)), name="m") == "m2unet"
    assert recognised(np.zeros((2, 2, 2), np.int16), name="m") == "m2unet"
    with pytest.raises(ScanError, match="no known lobe codes"):
        recognised(np.full((2, 2, 2), 300, np.int16), name="m")


@pytest.mark.real
def test_published_lobe_maps_are_recognised(real_data: Path) -> None:
    path = next((real_data / "lobe-maps").glob("*.nrrd"))
    raw = read_raw(path)
    assert recognised(from_source(raw.array, raw.spacing_mm, raw.origin_mm, raw.direction).array, name="m") == "luna16"
