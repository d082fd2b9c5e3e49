"""MetaImage and NRRD: as SimpleITK reads them, and refused where a header could do harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from m2unet.ct.findings import QualityError
from m2unet.ct.itk_files import read_itk

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


def test_a_link_out_of_the_folder_is_outside(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.mhd")
    (folder / "a.raw").rename(tmp_path / "secret.raw")
    (folder / "a.raw").symlink_to(tmp_path / "secret.raw")
    assert code_of(folder / "a.mhd") == "unsafe-reference"


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
