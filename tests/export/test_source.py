from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from m2unet.ct.volume import Volume
from m2unet.errors import MissingExtraError
from m2unet.export.seal import content_moment, series_number
from m2unet.export.source import ExportError, building, quiet, read_source, require_highdicom
from m2unet.export.uids import derive_uid
from tests.export.series import Case, make_case


def with_header(volume: Volume, **changes: object) -> Volume:
    return replace(volume, source=replace(volume.source, header={**volume.source.header, **changes}))


def test_images_come_in_the_volumes_slice_order(case: Case) -> None:
    source = read_source(case.volume)
    assert source.uids == tuple(case.volume.source.header["sop_instance_uids"])
    heights = [float(image.ImagePositionPatient[2]) for image in source.images]
    assert heights == sorted(heights)
    assert (source.pixel_spacing_mm, source.slice_spacing_mm) == ((0.8, 0.7), pytest.approx(3.0))
    assert source.frames is None


def test_distance_of_planes_with_a_tilt_is_less_than_the_step(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct", orientation=(1, 0, 0, 0, 0.8, -0.6))
    assert read_source(case.volume).slice_spacing_mm == pytest.approx(3 * 0.8)


def test_identifiers_missing_from_the_body_are_taken_from_the_file_head(tmp_path: Path) -> None:
    def headless(header: Dataset, index: int) -> None:
        del header.SOPInstanceUID

    folder = tmp_path / "ct"
    case = make_case(folder)
    for path in folder.iterdir():
        header = dcmread(path)
        headless(header, 0)
        header.save_as(path)
    assert read_source(case.volume).uids == tuple(case.volume.source.header["sop_instance_uids"])


def test_files_that_are_gone_or_changed(case: Case, tmp_path: Path) -> None:
    files = list(case.volume.source.header["files"])
    turned = with_header(case.volume, files=tuple(reversed(files)), sop_instance_uids=())
    with pytest.raises(ExportError, match="do not lie where"):
        read_source(turned)
    with pytest.raises(ExportError, match="have changed"):
        read_source(with_header(case.volume, files=tuple(reversed(files))))
    with pytest.raises(ExportError, match="one file a slice"):
        read_source(with_header(case.volume, files=tuple(files[:-1])))
    header = dcmread(files[2])
    header.Rows = header.Rows - 1
    header.save_as(files[2])
    with pytest.raises(ExportError, match=r"volume's size"):
        read_source(case.volume)
    Path(files[0]).unlink()
    with pytest.raises(ExportError, match=r"cannot be read again.*keep the DICOM series") as caught:
        read_source(case.volume)
    assert "001" not in str(caught.value) and os.fspath(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_images_without_identity_are_refused(name: str, case: Case) -> None:
    for path in case.folder.iterdir():
        header = dcmread(path)
        delattr(header, name)
        header.save_as(path)
    with pytest.raises(ExportError, match=f"6 of 6 without {name}"):
        read_source(case.volume)


def test_images_without_position_are_refused(case: Case) -> None:
    path = next(case.folder.iterdir())
    header = dcmread(path)
    del header.ImagePositionPatient
    header.save_as(path)
    with pytest.raises(ExportError, match="no position"):
        read_source(case.volume)


def test_rounded_orientations_are_taken_as_one(tmp_path: Path) -> None:
    def rounded(header: Dataset, index: int) -> None:
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, f"{index * 1e-6:.7f}"]

    case = make_case(tmp_path / "ct", change=rounded)
    assert len({str(image.ImageOrientationPatient) for image in read_source(case.volume).images}) == 1


def test_content_moment_falls_back(tmp_path: Path) -> None:
    def dated(header: Dataset, index: int) -> None:
        header.StudyDate, header.StudyTime = "", ""
        header.SeriesDate, header.SeriesTime = "", "120000"
        header.AcquisitionDate, header.AcquisitionTime = "20210405", "060708.25"

    case = make_case(tmp_path / "ct", change=dated)
    moment = content_moment(read_source(case.volume), None)
    assert moment.strftime("%Y%m%d %H%M%S") == "20210405 060708"


@pytest.mark.parametrize(("number", "expected"), [(3, 302), (None, 9002), (0, 9002), (99_999_999, 9002)])
def test_series_number(number: int | None, expected: int, case: Case) -> None:
    source = read_source(case.volume)
    source.first.SeriesNumber = number
    assert series_number(source, None, 2) == expected
    assert series_number(source, 5, 2) == 5


def test_derived_uids_depend_on_every_part_and_its_place() -> None:
    uids = {derive_uid("a", "b"), derive_uid("b", "a"), derive_uid("ab"), derive_uid("a", "b", "")}
    assert len(uids) == 4
    assert derive_uid("a", "b") == derive_uid("a", "b")


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingExtraError, match=r"pip install m2unet\[dicom\]"):
        require_highdicom()


def test_refusals_of_highdicom_become_errors_without_their_text() -> None:
    with pytest.raises(ExportError) as caught, building("segmentation"):
        raise ValueError("SECRET^NAME")
    assert "SECRET" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


def test_quiet_puts_loggers_back() -> None:
    import logging

    logger = logging.getLogger("pydicom")
    before = logger.level
    with pytest.raises(RuntimeError), quiet():
        assert not logger.isEnabledFor(logging.CRITICAL)
        raise RuntimeError
    assert logger.level == before


def test_other_frames_in_a_file_are_refused(case: Case) -> None:
    files = [case.volume.source.header["files"][0]] * 6
    with pytest.raises(ExportError, match="whose frames are the slices"):
        read_source(with_header(case.volume, files=files, frames=(0, 1, 2, 3, 4, 6)))


def test_names_and_numbers_run_against_the_places(case: Case) -> None:
    """These series would prove little if names and places ran the same way."""
    files = [Path(file).name for file in case.volume.source.header["files"]]
    assert files == sorted(files, reverse=True)
