"""Reading any format, and what is said about a scan's quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from m2unet.ct.findings import QualityError
from m2unet.ct.read import load, read_scan
from m2unet.errors import ConfigError
from tests.ct.samples import chest, write_series

SPACING = (10.0, 4.0, 4.0)
CHEST = chest()


def save(path: Path, array: NDArray, spacing: tuple[float, float, float] = SPACING) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    sitk.WriteImage(image, str(path))
    return path


def codes(path: Path) -> dict[str, str]:
    return {found.code: found.level for found in load(path).findings}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.mhd", "a.nrrd"])
def test_every_format_gives_the_same_volume(tmp_path: Path, name: str) -> None:
    volume = read_scan(save(tmp_path / name, CHEST))
    assert np.array_equal(volume.array, CHEST)
    assert volume.spacing_mm == pytest.approx(SPACING)
    assert volume.findings == ()
    assert volume.source.format == {"nii": "nifti", "gz": "nifti", "mhd": "mha"}.get(Path(name).suffix[1:], name[2:])
    assert volume.source.path == str(tmp_path / name)


def test_a_pair_of_files_by_either_name(tmp_path: Path) -> None:
    save(tmp_path / "a.hdr", CHEST)
    for name in ("a.hdr", "a.img"):
        assert np.array_equal(read_scan(tmp_path / name).array, CHEST)


def test_a_noiseless_picture_is_not_taken_for_a_windowed_one(tmp_path: Path) -> None:
    clean = chest(noise=0).clip(-1000, 45)
    assert codes(save(tmp_path / "a.nii", clean)) == {}
    assert codes(save(tmp_path / "b.nii", CHEST.clip(-1024, 45)))["windowed"] == "error"


@pytest.mark.parametrize("kind", ["i4", "f4", "f8"])
def test_wide_types_are_rounded(tmp_path: Path, kind: str) -> None:
    array = CHEST.astype(kind) + (0.3 if kind[0] == "f" else 0)
    assert np.array_equal(read_scan(save(tmp_path / "a.nii", array)).array, CHEST)


def test_padding_is_raised_and_noted(tmp_path: Path) -> None:
    array = CHEST.copy()
    array[:, :3] = -3024
    volume = read_scan(save(tmp_path / "a.nii", array))
    assert volume.array.min() == -1024
    assert [(f.code, f.level) for f in volume.findings] == [("padding", "note")]
    assert str(3 * 112 * 20) in volume.findings[0].found


def offset(array: NDArray[np.int16]) -> NDArray:
    return (array.astype(np.int32) + 1024).astype(np.uint16)


def eight_bit(array: NDArray[np.int16]) -> NDArray:
    return ((array.clip(-1200, 0) + 1200) / 1200 * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "code", "level"),
    [
        (offset, "offset-hu", "error"),
        (eight_bit, "eight-bit", "error"),
        (lambda a: eight_bit(a).astype(np.int16), "eight-bit", "error"),
        (lambda a: eight_bit(a).astype(np.float32) / 255, "not-hu", "error"),
        (lambda a: ((a - a.mean()) / (20 * a.std())).astype(np.float32), "not-hu", "error"),
        (lambda a: np.full_like(a, 7), "not-hu", "error"),
        (lambda a: (a.astype(np.int32) + 5000).astype(np.int16), "not-hu", "error"),
        (lambda a: a.clip(-160, 240), "not-hu", "error"),
        (lambda a: a.clip(-600, 1000), "windowed", "error"),
        (lambda a: a.clip(-900, 1000), "windowed", "warning"),
        (lambda a: a.clip(-1024, 0), "windowed", "error"),
        (lambda a: a.clip(-1024, 150), "windowed", "warning"),
        (lambda a: np.where(a > -500, a + 250, a).astype(np.int16), "implausible-hu", "warning"),
        (lambda a: np.where(a == a.max(), np.nan, a).astype(np.float32), "not-finite", "error"),
        (lambda a: np.where(a == a.max(), np.inf, a).astype(np.float32), "not-finite", "error"),
    ],
)
def test_values_that_are_no_hu(tmp_path: Path, change: object, code: str, level: str) -> None:
    path = save(tmp_path / "a.nii", change(CHEST))  # type: ignore[operator]
    assert codes(path)[code] == level
    if level == "error":
        with pytest.raises(QualityError) as caught:
            read_scan(path)
        assert code in {f.code for f in caught.value.findings}
        assert caught.value.exit_code == 2 and caught.value.mend
    else:
        assert code in {f.code for f in read_scan(path).findings}


PADDINGS = [-32768, -3024, -2000, -1024, -1000, -500, 0, 32767]


@pytest.mark.parametrize("padding", PADDINGS)
def test_values_before_the_rescale_are_known_beside_padding(tmp_path: Path, padding: int) -> None:
    raw = CHEST.astype(np.int32) + 1024
    raw[:2], raw[:, :6], raw[:, :, -5:] = padding, padding, padding
    (found,) = [f for f in load(save(tmp_path / "a.nii", raw)).findings if f.level == "error"]
    assert found.code == "offset-hu" and "too high" in found.found


@pytest.mark.parametrize(("shift", "code"), [(-1024, "offset-hu"), (1000, "offset-hu"), (8192, "not-hu")])
@pytest.mark.parametrize("padding", [None, -32768, -2048])
def test_other_shifts(tmp_path: Path, shift: int, code: str, padding: int | None) -> None:
    moved = CHEST.astype(np.int32) + shift
    moved[:2] = moved[:2] if padding is None else padding
    assert [f.code for f in load(save(tmp_path / "a.nii", moved)).findings if f.level == "error"] == [code]


def test_a_window_is_known_beside_padding(tmp_path: Path) -> None:
    windowed = CHEST.clip(-160, 240)
    windowed[:2] = -1024
    assert codes(save(tmp_path / "a.nii", windowed))["windowed"] == "error"
    grey = eight_bit(CHEST).astype(np.int16)
    grey[:2] = -1024
    assert codes(save(tmp_path / "b.nii", grey))["eight-bit"] == "error"


@pytest.mark.parametrize("padding", PADDINGS)
def test_padding_beside_hu_says_nothing_of_the_values(tmp_path: Path, padding: int) -> None:
    array = CHEST.copy()
    array[:, :6], array[:, :, -5:] = padding, padding
    found = codes(save(tmp_path / "a.nii", array))
    assert not {"offset-hu", "not-hu", "eight-bit", "windowed"} & set(found)


def test_a_scan_without_air_around_is_not_taken_for_other_values(tmp_path: Path) -> None:
    solid = without_lungs(CHEST)
    array = np.where(solid < -300, -1024, solid).astype(np.int16)
    assert set(codes(save(tmp_path / "a.nii", array))) == {"lungs-absent"}


@pytest.mark.parametrize(
    ("spacing", "code", "level"),
    [
        ((10.0, 8.0, 8.0), "unusual-spacing", "warning"),
        ((10.0, 0.09, 4.0), "unusual-spacing", "warning"),
        ((15.0, 4.0, 4.0), "thick-slices", "note"),
        ((1.0, 4.0, 4.0), "non-axial", "warning"),
    ],
)
def test_spacing(tmp_path: Path, spacing: tuple[float, float, float], code: str, level: str) -> None:
    assert codes(save(tmp_path / "a.nii", CHEST, spacing))[code] == level


def test_few_slices_and_an_oblique_frame(tmp_path: Path) -> None:
    found = codes(save(tmp_path / "a.nii", CHEST[8:12]))
    assert found == {"too-few-slices": "warning", "lungs-cut-off": "warning"}
    assert codes(save(tmp_path / "b.nii", CHEST[8:9]))["too-few-slices"] == "error"
    image = sitk.GetImageFromArray(CHEST)
    image.SetSpacing(SPACING[::-1])
    angle = np.deg2rad(20)
    image.SetDirection([np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1])
    sitk.WriteImage(image, str(tmp_path / "c.nii"))
    assert codes(tmp_path / "c.nii") == {"oblique": "note"}
    assert np.array_equal(read_scan(tmp_path / "c.nii").array, CHEST)


def without_lungs(array: NDArray[np.int16]) -> NDArray[np.int16]:
    solid = array.copy()
    labels, _ = ndimage.label(array < -500)
    solid[(labels > 0) & (labels != labels[0, 0, 0])] = 40
    return solid


def test_a_scan_without_lungs(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", without_lungs(CHEST))
    assert codes(path) == {"lungs-absent": "error"}
    few = {"too-few-slices": "warning"}
    assert codes(save(tmp_path / "b.nii", without_lungs(CHEST)[:9])) == {"lungs-absent": "error", **few}
    assert codes(save(tmp_path / "c.nii", without_lungs(CHEST)[:4])) == {"lungs-absent": "error", **few}
    assert codes(save(tmp_path / "d.nii", without_lungs(CHEST)[:3])) == {"lungs-absent": "warning", **few}
    volume = read_scan(path, accept=["lungs-absent"])
    assert [(f.code, f.level) for f in volume.findings] == [("lungs-absent", "warning")]
    with pytest.raises(ConfigError, match="cannot be accepted"):
        read_scan(path, accept=["missing-slices"])


def test_air_alone(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(-1000, 10, CHEST.shape).astype(np.int16)
    assert codes(save(tmp_path / "a.nii", array)) == {"body-absent": "error"}


def test_lungs_cut_off(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", CHEST[6:])
    (found,) = read_scan(path).findings
    assert (found.code, found.found) == ("lungs-cut-off", "at the bottom of the scan")


def test_what_is_no_scan(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((40, 40), np.uint8)), str(tmp_path / "a.png"))
    (tmp_path / "b.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (tmp_path / "a.png").rename(pictures / "1.png")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((40, 40), np.uint8)), str(tmp_path / "a.jpg"))
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    save(volumes / "a.nii", CHEST)
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("hello")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    expected = {
        "nothing": "not-found",
        "a.jpg": "picture",
        "b.txt": "unknown-file",
        "empty": "empty-folder",
        "pictures": "picture",
        "volumes": "empty-folder",
        "texts": "empty-folder",
    }
    for name, code in expected.items():
        assert codes(tmp_path / name) == {code: "error"}, name
    assert set(codes(broken).values()) == {"error"}
    assert "1 volume file(s)" in load(volumes).findings[0].found


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii", CHEST)

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert [(f.code, f.found) for f in load(path).findings] == [("unreadable", "Permission denied")]


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2unet.ct.dicom_files.MAX_FILES", 5)
    write_series(tmp_path, CHEST[:6])
    assert codes(tmp_path) == {"too-many-files": "error"}


def test_too_many_voxels_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2unet.ct.dicom_pixels.MAX_VOXELS", 1000)
    write_series(tmp_path, CHEST[:6])
    assert codes(tmp_path) == {"too-large": "error"}


@pytest.mark.real
def test_two_real_slices_can_be_read(real_data: Path) -> None:
    path = real_data / "cip" / "crop_ct_2slices.nii.gz"
    volume = read_scan(path)
    image = sitk.ReadImage(str(path))
    assert np.array_equal(volume.to_source(volume.array), sitk.GetArrayFromImage(image))
    assert volume.source.spacing_mm == pytest.approx(image.GetSpacing()[::-1])
    assert volume.source.origin_mm == pytest.approx(image.GetOrigin(), abs=1e-4)
    assert {f.code for f in volume.findings} == {"too-few-slices", "lungs-cut-off"}


@pytest.mark.real
def test_a_real_lobe_mask_is_no_ct(real_data: Path) -> None:
    assert codes(real_data / "cip" / "crop_lobes_2slices_1to5.nii.gz")["eight-bit"] == "error"
