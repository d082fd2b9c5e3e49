"""Kinds of files by their first bytes."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from m2unet.ct.sniff import sniff
from tests.ct.samples import chest, write_series


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.nii", "nifti"),
        ("a.nii.gz", "nifti"),
        ("a.mha", "mha"),
        ("a.mhd", "mha"),
        ("a.nrrd", "nrrd"),
        ("a.nhdr", "nrrd"),
    ],
)
def test_volumes_under_any_name(tmp_path: Path, name: str, kind: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16)), str(tmp_path / name))
    assert sniff((tmp_path / name).rename(tmp_path / "no.ending"))[0] == kind


@pytest.mark.parametrize(("name", "said"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.tif", "TIFF"), ("a.bmp", "BMP")])
def test_pictures(tmp_path: Path, name: str, said: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5), np.uint8)), str(tmp_path / name))
    assert sniff((tmp_path / name).rename(tmp_path / "a.nii")) == ("picture", said)


def test_dicom(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path, chest((1, 96, 112)))
    assert sniff(path) == ("dicom", "DICOM")


def test_others(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for data, said in (
        (b"", "an empty file"),
        (b"hello", "an unknown format"),
        (b"PK\x03\x04....", "a ZIP archive"),
        (gzip.compress(b"hello"), "a gzip archive of something else than NIfTI"),
        (gzip.compress(b"hello")[:9], "a gzip archive of something else than NIfTI"),
    ):
        path.write_bytes(data)
        assert sniff(path) == ("other", said)


def test_placeholders_of_files_that_were_not_fetched(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    for text in (
        "/annex/objects/MD5E-s1--0.nii.gz\n",
        "../.git/annex/objects/a/b",
        "version https://git-lfs.github.com/spec/v1\n",
    ):
        path.write_text(text)
        assert sniff(path)[0] == "pointer"
    path.write_text("see git-lfs.github.com\nand annex/objects/")
    assert sniff(path)[0] == "other"


def test_a_dicom_file_that_begins_with_its_meta_group(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path, chest((1, 96, 112)))
    path.write_bytes(path.read_bytes()[132:])
    assert sniff(path) == ("dicom", "DICOM")
    path.write_bytes(b"\x02\x00\x00\x00" + bytes(60))
    assert sniff(path)[0] == "other"
