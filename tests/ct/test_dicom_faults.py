"""DICOM folders whose headers contradict themselves, or whose files are not all there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, Sequence, dcmread

from m2unet.ct.dicom_files import read_contents
from m2unet.ct.findings import Finding, QualityError
from m2unet.ct.read import load, read_scan
from tests.ct.samples import chest, write_series

SPACING = (10.0, 6.0, 6.0)
CHEST = chest((20, 48, 56), SPACING)
Change = Callable[[Dataset, int], None]


def series(folder: Path, change: Change | None = None) -> list[Path]:
    return write_series(folder, CHEST, SPACING, change=change)


def errors(path: Path) -> list[Finding]:
    found = [f for f in load(path).findings if f.level == "error"]
    assert all(len(f.found) < 300 and "secret" not in f.found and str(path) not in f.found for f in found)
    return found


def error(path: Path) -> tuple[str, str]:
    (found,) = errors(path)
    return found.code, found.found


# --- files that are not there ----------------------------------------------------------------------------------------


def test_broken_links_are_counted(tmp_path: Path) -> None:
    for number, path in enumerate(series(tmp_path / "whole")):
        (tmp_path / "links").mkdir(exist_ok=True)
        target = path if number < 17 else tmp_path / ".git" / "annex" / "objects" / path.name
        (tmp_path / "links" / path.name).symlink_to(target)
    code, found = error(tmp_path / "links")  # the last three: nothing else would tell that they are missing
    assert code == "not-fetched" and found.startswith("3 of 20 files")
    for path in (tmp_path / "links").iterdir():
        path.unlink()
        path.symlink_to(tmp_path / "nothing")
    code, found = error(tmp_path / "links")
    assert code == "not-fetched" and found.startswith("20 of 20 files")


POINTERS = [
    b"/annex/objects/MD5E-s131580--00.dcm\n",
    b"../../.git/annex/objects/wp/7G/MD5E-s131580--00.dcm/MD5E-s131580--00.dcm",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 131580\n",
]


@pytest.mark.parametrize("text", POINTERS)
def test_placeholders_of_files_are_counted(tmp_path: Path, text: bytes) -> None:
    paths = series(tmp_path)
    paths[0].write_bytes(text)
    assert error(tmp_path) == ("not-fetched", "1 of 20 files are links or placeholders whose content is not here")
    assert error(paths[0])[0] == "not-fetched"


def test_a_single_file_that_was_not_fetched(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.symlink_to(tmp_path / "nothing")
    assert error(path) == ("not-fetched", "a link that leads nowhere")


def test_documents_that_are_not_there_forbid_nothing(tmp_path: Path) -> None:
    series(tmp_path)
    for name in ("README.md", "report.pdf"):
        (tmp_path / name).symlink_to(tmp_path / "nothing")
    assert [(f.code, f.level) for f in load(tmp_path).findings] == [("files-skipped", "note")]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    series(tmp_path / "store" / "a")
    scan = tmp_path / "scan"
    scan.mkdir()
    (scan / "ct").symlink_to(tmp_path / "store" / "a", target_is_directory=True)
    (scan / "again").symlink_to(tmp_path / "store" / "a", target_is_directory=True)
    (scan / "up").symlink_to(scan, target_is_directory=True)
    (scan / "root").symlink_to(tmp_path, target_is_directory=True)
    (scan / "self").symlink_to(scan / "self")
    assert read_contents(scan).not_fetched == 1  # the link to itself
    (scan / "self").unlink()
    volume = read_scan(scan)
    assert np.array_equal(volume.array, CHEST) and volume.findings == ()
    link = tmp_path / "link"
    link.symlink_to(scan, target_is_directory=True)
    assert np.array_equal(read_scan(link).array, CHEST)


def test_files_that_cannot_be_opened_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from m2unet.ct import dicom_files

    closed = series(tmp_path)[0]
    genuine = dicom_files.sniff

    def refuse(path: Path) -> tuple[object, str]:
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return genuine(path)

    monkeypatch.setattr(dicom_files, "sniff", refuse)
    assert error(tmp_path) == ("unreadable", "1 file(s) or folder(s) that may not be opened")


# --- files that cannot be parsed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", bytes(4096), b"\x1f\x8bx", b"half of"])
@pytest.mark.parametrize("name", ["IM.dcm", "1_0099", "1_0099.dcm.part"])
def test_what_has_the_name_of_a_slice_and_is_none(tmp_path: Path, content: bytes, name: str) -> None:
    for path in series(tmp_path):
        path.rename(path.with_suffix(""))
    (tmp_path / name).write_bytes(content)
    (tmp_path / "VERSION").write_bytes(content)  # no slice by its name: a note
    (tmp_path / "notes.txt").write_bytes(content)
    code, found = error(tmp_path)
    assert code == "unreadable" and found.startswith("1 of 23 files are DICOM slices")


@pytest.mark.parametrize("keep", [140, 200, 300, 420])
def test_slices_cut_inside_their_header(tmp_path: Path, keep: int) -> None:
    paths = series(tmp_path)
    paths[0].write_bytes(paths[0].read_bytes()[:keep])
    assert ("unreadable", True) in {(f.code, f.found.startswith("1 of 20 files")) for f in errors(tmp_path)}


def test_dicom_documents_are_no_slices(tmp_path: Path) -> None:
    path = series(tmp_path)[0]
    report = dcmread(path)
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.Modality = "SR"
    del report.Rows, report.Columns, report.PixelData
    report.save_as(tmp_path / "report.dcm")
    assert [(f.code, f.level) for f in load(tmp_path).findings] == [("files-skipped", "note")]


def test_files_that_begin_with_their_meta_group_are_read(tmp_path: Path) -> None:
    for path in series(tmp_path)[:3]:
        path.write_bytes(path.read_bytes()[132:])
        assert path.read_bytes()[:4] == b"\x02\x00\x00\x00"
    assert np.array_equal(read_scan(tmp_path).array, CHEST)
    assert load(tmp_path).findings == ()


# --- elements that do not say where a slice lies ---------------------------------------------------------------------

GEOMETRY = {
    "PixelSpacing": "(0028,0030)",
    "ImageOrientationPatient": "(0020,0037)",
    "ImagePositionPatient": "(0020,0032)",
}


def broken(keyword: str, value: object, only: range = range(20)) -> Change:
    def change(header: Dataset, index: int) -> None:
        if index in only:
            if value is None:
                delattr(header, keyword)
            else:
                setattr(header, keyword, value)

    return change


@pytest.mark.parametrize("keyword", GEOMETRY)
def test_a_missing_element_of_geometry_is_named(tmp_path: Path, keyword: str) -> None:
    series(tmp_path, broken(keyword, None))
    said = f"{keyword} {GEOMETRY[keyword]} is missing or empty in 20 of 20 slices"
    assert error(tmp_path) == ("no-position", said)


@pytest.mark.parametrize("keyword", GEOMETRY)
def test_an_element_missing_in_some_slices_is_an_error_too(tmp_path: Path, keyword: str) -> None:
    series(tmp_path, broken(keyword, None, range(18, 20)))
    said = f"{keyword} {GEOMETRY[keyword]} is missing or empty in 2 of 20 slices"
    assert error(tmp_path) == ("no-position", said)


@pytest.mark.parametrize(
    ("keyword", "value", "shown"),
    [
        ("PixelSpacing", ["0", "8"], "0\\8"),
        ("PixelSpacing", ["-8", "8"], "-8\\8"),
        ("PixelSpacing", ["8"], "8"),
        ("ImageOrientationPatient", list("100100"), "1\\0\\0\\1\\0\\0"),
        ("ImageOrientationPatient", list("000000"), "0\\0\\0\\0\\0\\0"),
    ],
)
def test_an_unusable_element_of_geometry_is_shown(tmp_path: Path, keyword: str, value: object, shown: str) -> None:
    series(tmp_path, broken(keyword, value))
    said = f'{keyword} {GEOMETRY[keyword]} is "{shown}", which cannot be used, in 20 of 20 slices'
    assert error(tmp_path) == ("no-position", said)


@pytest.mark.parametrize(("text", "shown"), [("9,0000", "9,0000\\9,0000"), ("Secret", "a text")])
def test_a_decimal_comma_is_shown_and_a_name_is_not(tmp_path: Path, text: str, shown: str) -> None:
    for path in series(tmp_path, broken("PixelSpacing", ["9.0000", "9.0000"])):
        path.write_bytes(path.read_bytes().replace(b"9.0000", text.encode()))
    code, found = error(tmp_path)
    assert code == "no-position" and f'PixelSpacing (0028,0030) is "{shown}"' in found and "Secret" not in found


def test_all_slices_in_one_place(tmp_path: Path) -> None:
    series(tmp_path, broken("ImagePositionPatient", [-200, -150, -300]))
    code, found = error(tmp_path)
    assert (code, found) == ("no-position", "ImagePositionPatient (0020,0032) is the same in all 20 slices")


def test_positions_that_change_only_within_the_planes(tmp_path: Path) -> None:
    write_series(tmp_path, CHEST, SPACING, orientation=(1, 0, 0, 0, 0, -1))
    code, found = error(tmp_path)
    assert code == "no-position" and "ImageOrientationPatient (0020,0037)" in found


def test_a_multi_frame_file_without_positions(tmp_path: Path) -> None:
    path = write_series(tmp_path, CHEST, SPACING)[0]
    header = dcmread(path)
    header.NumberOfFrames = len(CHEST)
    header.PixelData = (CHEST.astype(np.int32) + 1024).astype("<u2").tobytes()
    header.save_as(tmp_path / "multi.dcm", enforce_file_format=True)
    code, found = error(tmp_path / "multi.dcm")
    assert code == "no-position" and "ImagePositionPatient (0020,0032)" in found


@pytest.mark.parametrize("spacing", [(10.0, 800.0, 800.0), (10.0, 0.006, 0.006), (10000.0, 6.0, 6.0)])
def test_steps_in_another_unit_are_refused_before_voxels_are_read(
    tmp_path: Path, spacing: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("voxels were read")

    monkeypatch.setattr("m2unet.ct.dicom.read_voxels", read)
    write_series(tmp_path, CHEST, spacing)
    code, found = error(tmp_path)
    assert code == "bad-spacing" and "PixelSpacing (0028,0030)" in found and "mm" in found


# --- UIDs ------------------------------------------------------------------------------------------------------------


def test_a_series_uid_for_each_file(tmp_path: Path) -> None:
    def change(header: Dataset, index: int) -> None:
        header.SeriesInstanceUID = f"1.2.3.4.77.{index}"

    series(tmp_path, change)
    said = "20 files have a SeriesInstanceUID (0020,000E) of their own each"
    assert error(tmp_path) == ("bad-uids", said)

    def studies(header: Dataset, index: int) -> None:
        change(header, index)
        header.StudyInstanceUID = f"1.2.3.77.{index}"

    series(tmp_path, studies)
    assert error(tmp_path) == ("bad-uids", said)


def test_single_images_of_several_series_are_not_taken_for_a_stack(tmp_path: Path) -> None:
    for number in range(5):
        write_series(tmp_path / str(number), CHEST[number : number + 1], SPACING, series=str(number + 1))
    assert error(tmp_path)[0] == "too-few-slices"


@pytest.mark.parametrize("count", [20, 3])
def test_one_instance_uid_for_several_slices(tmp_path: Path, count: int) -> None:
    series(tmp_path, broken("SOPInstanceUID", "1.2.3.4.5", range(count)))
    said = f"SOPInstanceUID (0008,0018): {21 - count} different one(s) in 20 slices"
    assert error(tmp_path) == ("bad-uids", said)


def test_a_series_of_several_studies_or_frames_of_reference(tmp_path: Path) -> None:
    def change(keyword: str) -> Change:
        return lambda header, index: setattr(header, keyword, f"1.2.3.55.{index % 2}")

    series(tmp_path / "a", change("StudyInstanceUID"))
    assert error(tmp_path / "a") == ("bad-uids", "StudyInstanceUID (0020,000D): 2 different ones in one series")
    series(tmp_path / "b", change("FrameOfReferenceUID"))
    (found,) = load(tmp_path / "b").findings
    assert (found.code, found.level) == ("contradictory-geometry", "warning")


def test_copies_whose_voxels_differ_are_no_copies(tmp_path: Path) -> None:
    path = series(tmp_path)[4]
    copy = dcmread(path)
    copy.PixelData = copy.PixelData[2:] + b"\0\0"
    copy.save_as(tmp_path / "copy.dcm")  # the same instance UID
    assert error(tmp_path)[0] == "duplicate-slices"


# --- the rescale -----------------------------------------------------------------------------------------------------

RESCALE = {"RescaleSlope": "(0028,1053)", "RescaleIntercept": "(0028,1052)"}


@pytest.mark.parametrize("keyword", RESCALE)
@pytest.mark.parametrize("text", ["0,5000", "1.0 HU", "nan   ", "inf   "])
def test_an_unreadable_rescale_is_shown(tmp_path: Path, keyword: str, text: str) -> None:
    for path in series(tmp_path, broken(keyword, "0.7777")):
        path.write_bytes(path.read_bytes().replace(b"0.7777", text.encode()))
    said = f'{keyword} {RESCALE[keyword]} is "{text.strip()}", which cannot be used, in 20 of 20 slices'
    assert error(tmp_path) == ("bad-rescale", said)


@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_slope_that_is_not_positive(tmp_path: Path, value: str) -> None:
    series(tmp_path, broken("RescaleSlope", value))
    code, found = error(tmp_path)
    assert code == "bad-rescale" and f'RescaleSlope (0028,1053) is "{value}"' in found


@pytest.mark.parametrize("keyword", RESCALE)
@pytest.mark.parametrize("value", [None, ""])
def test_a_rescale_missing_in_some_slices_only(tmp_path: Path, keyword: str, value: str | None) -> None:
    series(tmp_path, broken(keyword, value, range(3)))
    said = f"{keyword} {RESCALE[keyword]} is missing or empty in 3 of 20 slices"
    assert error(tmp_path) == ("bad-rescale", said)


def test_a_rescale_missing_everywhere_is_a_warning(tmp_path: Path) -> None:
    def change(header: Dataset, index: int) -> None:
        del header.RescaleSlope, header.RescaleIntercept
        header.PixelRepresentation = 1
        header.PixelData = CHEST[index].astype("<i2").tobytes()

    series(tmp_path / "a", change)
    (found,) = load(tmp_path / "a").findings
    assert (found.code, found.level) == ("no-rescale", "warning") and "RescaleSlope (0028,1053)" in found.found

    def table(header: Dataset, index: int) -> None:
        change(header, index)
        header.ModalityLUTSequence = Sequence([Dataset()])

    series(tmp_path / "b", table)
    code, said = error(tmp_path / "b")
    assert code == "bad-rescale" and "ModalityLUTSequence (0028,3000)" in said


def test_slices_of_which_some_are_not_hu(tmp_path: Path) -> None:
    series(tmp_path, broken("RescaleType", "OD", range(3)))
    assert error(tmp_path) == ("bad-rescale", "RescaleType (0028,1054) is HU, OD: some slices are not HU")


def test_an_unreadable_slope_in_the_groups_of_a_multi_frame_file(tmp_path: Path) -> None:
    header = dcmread(series(tmp_path / "a")[0])
    del header.RescaleSlope, header.RescaleIntercept, header.ImagePositionPatient
    header.NumberOfFrames = len(CHEST)
    header.PixelData = (CHEST.astype(np.int32) + 1024).astype("<u2").tobytes()
    groups = []
    for index in range(len(CHEST)):
        group, position, values = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-200, -150, -300 + 10 * index]
        values.RescaleSlope, values.RescaleIntercept = ("0" if index == 4 else "1"), -1024
        group.PlanePositionSequence, group.PixelValueTransformationSequence = Sequence([position]), Sequence([values])
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = Sequence(groups)
    header.save_as(tmp_path / "multi.dcm", enforce_file_format=True)
    said = 'RescaleSlope (0028,1053) is "0", which cannot be used, in 1 of 20 slices'
    assert error(tmp_path / "multi.dcm") == ("bad-rescale", said)


def test_every_message_says_what_to_do(tmp_path: Path) -> None:
    series(tmp_path, broken("PixelSpacing", None))
    with pytest.raises(QualityError, match="export the original axial series"):
        read_scan(tmp_path)
