"""Digests that stand for scans and identifiers."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread

from m2unet.ct.identity import identify_scan, scan_files, uid_digest, with_data
from tests.ct.samples import chest, write_series

CHEST = chest((6, 24, 28))


def sha(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()


def test_a_uid_has_one_digest_whatever_it_is_padded_with() -> None:
    expected = hashlib.sha256(b"1.2.840.1").hexdigest()
    assert {uid_digest(uid) for uid in ("1.2.840.1", "1.2.840.1\0", " 1.2.840.1 ")} == {expected}
    assert uid_digest("1.2.840.2") != expected


def test_a_series_is_named_by_its_uid_wherever_it_lies(tmp_path: Path) -> None:
    write_series(tmp_path / "a" / "CT", CHEST)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    one, other = (identify_scan(tmp_path / name) for name in ("a", "b"))
    assert one.digest == other.digest == sha(b"1.2.3.4.1") and one.basis == "series"
    assert one.images == other.images and one.fingerprint == other.fingerprint
    assert (one.study_uid, one.series_uid) == ("1.2.3", "1.2.3.4.1")
    assert one.patient.resemble("secret_CT") and len(one.files) == len(CHEST)


def test_series_that_share_a_uid_by_mistake_differ_in_their_images(tmp_path: Path) -> None:
    def other_images(header: Dataset, index: int) -> None:
        header.SOPInstanceUID = f"9.9.{index}"

    write_series(tmp_path / "a", CHEST)
    write_series(tmp_path / "b", CHEST, change=other_images)
    one, other = (identify_scan(tmp_path / name) for name in ("a", "b"))
    assert one.digest == other.digest and one.images != other.images


def test_a_series_without_uid_is_named_by_its_images(tmp_path: Path) -> None:
    def bare(header: Dataset, _: int) -> None:
        del header.SeriesInstanceUID

    write_series(tmp_path, CHEST, change=bare)
    found = identify_scan(tmp_path)
    assert found.basis in ("images", "path") and len(found.digest) == 64


def test_other_files_are_named_by_their_content(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(CHEST)
    sitk.WriteImage(image, str(tmp_path / "a.mhd"))
    header, data = tmp_path / "a.mhd", tmp_path / "a.raw"
    assert with_data(header) == (header, data)
    assert identify_scan(header).digest == sha(header.read_bytes(), data.read_bytes())
    before = identify_scan(header)
    data.write_bytes(bytes(len(data.read_bytes())))
    assert identify_scan(header).digest != before.digest and identify_scan(header).fingerprint != before.fingerprint
    sitk.WriteImage(image, str(tmp_path / "b.nii.gz"))
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "b.nii.gz")
    single = tmp_path / "b.nii.gz"
    assert identify_scan(single).digest == sha(single.read_bytes()) == identify_scan(tmp_path / "link.nii.gz").digest


def test_a_pair_has_one_digest_from_either_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(CHEST, np.eye(4)), tmp_path / "a.img")
    assert identify_scan(tmp_path / "a.img") == identify_scan(tmp_path / "a.hdr")


def test_what_cannot_be_read_is_named_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = identify_scan(Path("nothing"))
    assert found.basis == "path" and found.digest == sha(os.fsencode(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    assert identify_scan(tmp_path / "empty").basis == "path"


def test_the_patient_of_a_series_that_cannot_be_used_is_known(tmp_path: Path) -> None:
    write_series(tmp_path, CHEST, change=lambda header, _: setattr(header, "Modality", "MR"))
    found = identify_scan(tmp_path)
    assert found.basis == "path" and found.patient.resemble("Secret_Name")


def test_results_in_the_study_change_neither_files_nor_fingerprint(tmp_path: Path) -> None:
    write_series(tmp_path, CHEST)
    before, files = identify_scan(tmp_path), scan_files(tmp_path)
    out = tmp_path / "results" / "CT-1"
    out.mkdir(parents=True)
    header = dcmread(files[0])
    header.Modality, header.SOPInstanceUID = "SEG", "7.7"
    header.save_as(out / "lobes.seg.dcm")
    (out / "result.json").write_text("{}")
    (tmp_path / "cohort.csv").write_text("case\n")
    (out / "lobes.nii.gz").write_bytes(gzip.compress(b"x"))
    assert identify_scan(tmp_path).fingerprint == before.fingerprint and scan_files(tmp_path) == files
    assert len(files) == len(CHEST)
    files[0].touch()
    assert identify_scan(tmp_path).fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("field", "value"),
    [("descrip", b"MUSTERFRAU^ERIKA"), ("db_name", b"Musterfrau"), ("aux_file", b"erika.musterfrau")],
)
def test_texts_of_a_nifti_header_are_compared(tmp_path: Path, field: str, value: bytes) -> None:
    image = nib.Nifti1Image(CHEST, np.eye(4))
    image.header[field] = value
    nib.save(image, tmp_path / "a.nii.gz")
    patient = identify_scan(tmp_path / "a.nii.gz").patient
    assert patient.resemble("CT_musterfrau_1") and not patient.resemble("CT_1")


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("PatientName", "MUSTERFRAU^ERIKA", "erika_ct"),
        ("0010|0010", "LI^WEI", "li_ct"),
        ("PatientID", "4711", "ct_4711"),
        ("PatientBirthDate", "19640812", "12.08.1964"),
        ("Comment", "scan of Musterfrau", "musterfrau"),
    ],
)
def test_keys_of_other_headers_are_compared(tmp_path: Path, ending: str, key: str, value: str, text: str) -> None:
    image = sitk.GetImageFromArray(CHEST)
    image.SetMetaData(key, value)
    sitk.WriteImage(image, str(tmp_path / f"a.{ending}"))
    patient = identify_scan(tmp_path / f"a.{ending}").patient
    assert patient.resemble(text) and not patient.resemble("s001")


def test_linked_folders_are_looked_into_once(tmp_path: Path) -> None:
    write_series(tmp_path / "far", CHEST)
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "CT").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "again").symlink_to(tmp_path / "near")
    assert len(scan_files(tmp_path / "near")) == len(CHEST)


def test_a_folder_of_many_files_is_not_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path, CHEST)
    monkeypatch.setattr("m2unet.ct.identity.MAX_FILES", 3)
    assert len(scan_files(tmp_path)) == 3


def test_header_values_are_not_quoted_in_warnings(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    def odd(header: Dataset, _: int) -> None:
        header.add_new(0x00100030, "DA", "12.08.1964x")

    write_series(tmp_path, CHEST, change=odd)
    recwarn.clear()
    caplog.clear()
    identify_scan(tmp_path)
    assert not [str(one.message) for one in recwarn if "1964" in str(one.message)] and "1964" not in caplog.text
