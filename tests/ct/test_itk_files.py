"""MetaImage and NRRD: as SimpleITK reads them, and refused where a header could do harm."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from m2unet.ct.findings import QualityError
from m2unet.ct.itk_files import read_itk
from m2unet.ct.raw import RawScan

ARRAY = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)


def image_of(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5) + (1.0,) * (array.ndim - 3))
    return image


def write(path: Path, *, compress: bool = False) -> Path:
    sitk.WriteImage(image_of(ARRAY), str(path), compress)
    return path


def kind_of(path: Path) -> str:
    return "mha" if path.suffix in (".mha", ".mhd") else "nrrd"


def code_of(path: Path) -> str:
    with pytest.raises(QualityError) as caught:
        read_itk(path, kind_of(path))
    (found,) = caught.value.findings
    assert str(path.parent) not in found.found and path.name not in found.found
    return found.code


def edit(path: Path, old: str, new: str) -> Path:
    data = path.read_bytes()
    assert old.encode() in data
    path.write_bytes(data.replace(old.encode(), new.encode(), 1))
    return path


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nhdr"])
def test_read(tmp_path: Path, name: str, compress: bool) -> None:
    raw = read_itk(write(tmp_path / name, compress=compress), kind_of(Path(name)))
    assert np.array_equal(raw.array, ARRAY)
    assert raw.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert raw.findings == () and raw.stored_bits == 16


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_several_volumes_and_values(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    sitk.WriteImage(sitk.JoinSeries([image_of(ARRAY)]), str(path))
    assert np.array_equal(read_itk(path, kind_of(path)).array, ARRAY)
    sitk.WriteImage(sitk.JoinSeries([image_of(ARRAY)] * 2), str(path))
    assert code_of(path) == "dimensions"
    sitk.WriteImage(sitk.Compose([image_of(ARRAY)] * 3), str(path))
    assert code_of(path) == "dimensions"
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY[0]), str(path))
    assert code_of(path) == "too-few-slices"


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_truncated(tmp_path: Path, name: str, compress: bool) -> None:
    path = write(tmp_path / name, compress=compress)
    path.write_bytes(path.read_bytes()[:-60])
    assert code_of(path) == ("truncated" if name == "a.mha" else "unreadable")


def test_huge_declarations(tmp_path: Path) -> None:
    assert code_of(edit(write(tmp_path / "a.mha"), "DimSize = 6 5 4", "DimSize = 99999 99999 99999")) == "too-large"
    assert code_of(edit(write(tmp_path / "a.nrrd"), "sizes: 6 5 4", "sizes: 99999 99999 99999")) == "too-large"
    path = write(tmp_path / "b.mha", compress=True)
    size = next(line for line in path.read_bytes().split(b"\n") if line.startswith(b"CompressedDataSize"))
    assert code_of(edit(path, size.decode(), "CompressedDataSize = 999999999999")) == "truncated"


@pytest.mark.parametrize("target", ["../secret.raw", "/etc/hostname", "LIST", "slice%03d.raw", "sub/../../secret.raw"])
def test_headers_reaching_outside_their_folder(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(ARRAY.tobytes())
    assert code_of(edit(write(folder / "a.mhd"), "a.raw", target)) == "unsafe-reference"
    assert code_of(edit(write(folder / "b.nhdr"), "b.raw", target)) == "unsafe-reference"


def test_linked_data_files_and_folders_are_followed(tmp_path: Path) -> None:
    folder, store = tmp_path / "in", tmp_path / "store"
    folder.mkdir()
    store.mkdir()
    for name in ("a.mhd", "b.nhdr"):
        path = write(folder / name)
        path.with_suffix(".raw").rename(store / f"{path.stem}.raw")
        path.with_suffix(".raw").symlink_to(store / f"{path.stem}.raw")
        assert np.array_equal(read_itk(path, kind_of(path)).array, ARRAY)
    (folder / "sub").symlink_to(store, target_is_directory=True)
    edit(folder / "a.mhd", "a.raw", "sub/a.raw")
    assert np.array_equal(read_itk(folder / "a.mhd", "mha").array, ARRAY)
    (store / "a.mhd").write_bytes((folder / "a.mhd").read_bytes())  # a linked header names a file beside the link
    (folder / "a.mhd").unlink()
    (folder / "a.mhd").symlink_to(store / "a.mhd")
    assert np.array_equal(read_itk(folder / "a.mhd", "mha").array, ARRAY)


def test_data_files_that_were_not_fetched(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mhd")
    data = tmp_path / "a.raw"
    data.write_bytes(b"/annex/objects/SHA256E-s240--00.raw\n")
    assert code_of(path) == "not-fetched"
    data.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 240\n")
    assert code_of(path) == "not-fetched"
    data.unlink()
    data.symlink_to(tmp_path / ".git" / "annex" / "objects" / "nothing")
    assert code_of(path) == "not-fetched"


def test_data_file_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mhd")
    (tmp_path / "a.raw").unlink()
    assert code_of(path) == "truncated"


def test_headers_without_sizes_or_with_words(tmp_path: Path) -> None:
    assert code_of(edit(write(tmp_path / "a.mha"), "DimSize", "DimSise")) == "unreadable"
    assert code_of(edit(write(tmp_path / "b.mha"), "DimSize = 6", "DimSize = six")) == "unreadable"
    assert code_of(edit(write(tmp_path / "a.nrrd"), "sizes", "sises")) == "unreadable"


def test_a_nrrd_without_space_has_no_known_orientation(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nspacings: 1 1 2\nendian: little\nencoding: raw\n\n"
    path.write_bytes(header.encode() + ARRAY.tobytes())
    raw = read_itk(path, "nrrd")
    assert np.array_equal(raw.array, ARRAY) and raw.spacing_mm == (2.0, 1.0, 1.0)
    assert [f.code for f in raw.findings] == ["orientation-unknown"]


def test_a_zero_spacing_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mha")
    line = next(line for line in path.read_bytes().split(b"\n") if line.startswith(b"ElementSpacing"))
    edit(path, line.decode(), "ElementSpacing = 0 1 1")
    with pytest.raises(QualityError):
        read_itk(path, "mha")


# --- units, axes, steps ----------------------------------------------------------------------------------------------

NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: raw\n"
DIRECTIONS = "space directions: (0.7,0,0) (0,0.8,0) (0,0,2.5)\nspace origin: (10,20,30)\n"
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
META_END = "DimSize = 6 5 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
IDENTITY = "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"
STEPS = "ElementSpacing = 0.7 0.8 2.5\n"


def nrrd(folder: Path, fields: str) -> RawScan:
    (folder / "x.nrrd").write_bytes((NRRD + fields + "\n").encode() + ARRAY.tobytes())
    return read_itk(folder / "x.nrrd", "nrrd")


def meta(folder: Path, fields: str) -> RawScan:
    (folder / "x.mha").write_bytes((META + fields + META_END).encode() + ARRAY.tobytes())
    return read_itk(folder / "x.mha", "mha")


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (1, 1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
        ("LAS", (1, -1, 1)),
        ("right-anterior-superior", (-1, -1, 1)),
    ],
)
def test_every_space_of_a_nrrd_ends_up_in_lps(tmp_path: Path, space: str, signs: tuple[int, int, int]) -> None:
    """By the NRRD format's definition; SimpleITK before 2.5.6 turned left-anterior-superior by 180 degrees."""
    raw = nrrd(tmp_path, f"space: {space}\n{DIRECTIONS}")
    assert np.allclose(raw.direction, np.diag(signs))
    assert raw.origin_mm == pytest.approx((10 * signs[0], 20 * signs[1], 30))
    assert raw.spacing_mm == pytest.approx((2.5, 0.8, 0.7)) and raw.findings == ()


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-right-handed"])
def test_a_space_that_is_not_the_patients(tmp_path: Path, space: str) -> None:
    (found,) = nrrd(tmp_path, f"space: {space}\n{DIRECTIONS}").findings
    assert (found.code, found.level) == ("orientation-unknown", "warning") and space.lower() in found.found


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        (STEPS, "orientation-unknown", "without TransformMatrix"),
        (STEPS + "AnatomicalOrientation = ???\n", "orientation-unknown", "without TransformMatrix"),
        (STEPS + "AnatomicalOrientation = LPI\n", "contradictory-geometry", "LPI.*RAI is taken"),
        (STEPS + IDENTITY + "AnatomicalOrientation = LPI\n", "contradictory-geometry", "LPI.*TransformMatrix RAI"),
        (STEPS + "AnatomicalOrientation = RAI\n", None, ""),
        (STEPS + IDENTITY, None, ""),
        (STEPS + IDENTITY + "AnatomicalOrientation = ???\n", None, ""),
        (STEPS + "Rotation = 1 0 0 0 1 0 0 0 1\n", None, ""),
    ],
)
def test_a_metaimage_says_how_it_lies_or_a_warning_does(
    tmp_path: Path, fields: str, code: str | None, said: str
) -> None:
    found = meta(tmp_path, fields).findings
    assert [(f.code, f.level) for f in found] == ([] if code is None else [(code, "warning")])
    assert code is None or re.search(said, found[0].found)


@pytest.mark.parametrize("angles", [(0, 0, 0), (180, 0, 0), (0, 0, 180), (90, 0, 90), (10, 5, 0), (45, 0, 0)])
def test_what_itk_writes_does_not_contradict_itself(tmp_path: Path, angles: tuple[float, float, float]) -> None:
    image = image_of(ARRAY)
    image.SetDirection(Rotation.from_euler("zyx", angles, degrees=True).as_matrix().ravel())
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    assert read_itk(tmp_path / "a.mha", "mha").findings == ()


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("cm", 10.0), ("um", 0.001), ("µm", 0.001), ("m", 1000.0)])
def test_units_are_obeyed(tmp_path: Path, unit: str, scale: float) -> None:
    steps = [step / scale for step in (0.7, 0.8, 2.5)]
    directions = f"space directions: ({steps[0]},0,0) (0,{steps[1]},0) (0,0,{steps[2]})\n"
    origin = f"space origin: ({10 / scale},0,0)\n"
    units = f'space units: "{unit}" "{unit}" "{unit}"\n'
    raw = nrrd(tmp_path, "space: left-posterior-superior\n" + units + directions + origin)
    assert raw.spacing_mm == pytest.approx((2.5, 0.8, 0.7)) and raw.origin_mm == pytest.approx((10, 0, 0))
    spacing = "ElementSpacing = " + " ".join(map(str, steps)) + "\n"
    raw = meta(tmp_path, IDENTITY + spacing + f"Offset = {10 / scale} 0 0\nDistanceUnits = {unit}\n")
    assert raw.spacing_mm == pytest.approx((2.5, 0.8, 0.7)) and raw.origin_mm == pytest.approx((10, 0, 0))


@pytest.mark.parametrize(
    "fields",
    [
        'space: left-posterior-superior\nspace units: "m" "m" "m"\n' + DIRECTIONS,
        'space: left-posterior-superior\nspace units: "m" "mm" "mm"\n' + DIRECTIONS,
        "space: left-posterior-superior\n" + DIRECTIONS.replace("0.7", "0.0007"),
        "space: left-posterior-superior\n" + DIRECTIONS.replace("2.5", "2500"),
        "content: no steps\n",
    ],
)
def test_steps_of_no_scan_in_a_nrrd(tmp_path: Path, fields: str) -> None:
    with pytest.raises(QualityError, match="bad-spacing"):
        nrrd(tmp_path, fields)


@pytest.mark.parametrize("fields", [IDENTITY, IDENTITY + "ElementSpacing = 700 800 2500\n"])
def test_steps_of_no_scan_in_a_metaimage(tmp_path: Path, fields: str) -> None:
    with pytest.raises(QualityError, match="bad-spacing"):
        meta(tmp_path, fields)


def test_metres_are_refused_before_the_voxels_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(self: sitk.ImageFileReader) -> None:
        raise AssertionError("voxels were read")

    monkeypatch.setattr(sitk.ImageFileReader, "Execute", execute)
    with pytest.raises(QualityError, match=r"4200 x 4000 x 1e\+04 mm"):
        meta(tmp_path, IDENTITY + "ElementSpacing = 700 800 2500\n")
