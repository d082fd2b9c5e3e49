"""Which of several series is taken."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset

from m2unet.ct.dicom import chosen_series
from m2unet.ct.dicom_choice import candidates, choose
from m2unet.ct.dicom_files import read_contents
from m2unet.ct.findings import Finding, QualityError
from m2unet.ct.read import load, read_scan
from tests.ct.samples import chest, write_series

CHEST = chest((20, 48, 56))
THIN = chest((40, 48, 56))


def named(**values: object) -> Callable[[Dataset, int], None]:
    def change(header: Dataset, _: int) -> None:
        for name, value in values.items():
            setattr(header, name, value)

    return change


def chosen(folder: Path) -> int:
    findings: list[Finding] = []
    candidate = choose(candidates(read_contents(folder).slices, findings), findings)
    return candidate.number


def test_the_thinnest_of_the_whole_chest(tmp_path: Path) -> None:
    write_series(tmp_path / "1", CHEST, (10.0, 8.0, 8.0), series="1")
    write_series(tmp_path / "2" / "deep", THIN, (5.0, 8.0, 8.0), series="2")
    write_series(tmp_path / "3", THIN, (1.0, 8.0, 8.0), series="3")  # thinner, but a part of the chest only
    assert chosen(tmp_path) == 2


def test_lung_kernel_breaks_the_tie(tmp_path: Path) -> None:
    for number, kernel in enumerate(("STANDARD", "LUNG", "FC18"), 1):
        write_series(
            tmp_path / str(number), CHEST, (10.0, 8.0, 8.0), series=str(number), change=named(ConvolutionKernel=kernel)
        )
    assert chosen(tmp_path) == 2


SHARP = ("LUNG", "BONEPLUS", "B70f", "Br59d\\3", "FC51", "YC", "L")
SOFT = ("STANDARD", "B30f", "Br36f", "FC18", "B", "SOFT", "")


@pytest.mark.parametrize(("kernel", "sharp"), [(k, True) for k in SHARP] + [(k, False) for k in SOFT])
def test_kernels_of_several_makers(tmp_path: Path, kernel: str, sharp: bool) -> None:
    write_series(tmp_path / "1", CHEST[:3], (10.0, 8.0, 8.0), series="1", change=named(ConvolutionKernel="OTHER"))
    write_series(tmp_path / "2", CHEST[:3], (10.0, 8.0, 8.0), series="2", change=named(ConvolutionKernel=kernel))
    assert chosen(tmp_path) == (2 if sharp else 1)


def test_axial_before_others_original_before_derived_sound_before_broken(tmp_path: Path) -> None:
    write_series(tmp_path / "1", CHEST, (10.0, 8.0, 8.0), series="1")
    coronal = (1, 0, 0, 0, 0, -1)
    write_series(tmp_path / "2", THIN, (2.0, 8.0, 8.0), series="2", orientation=coronal, step=(0, 2.0, 0))
    derived = named(ImageType=["DERIVED", "SECONDARY", "AXIAL"])
    write_series(tmp_path / "3", THIN, (5.0, 8.0, 8.0), series="3", change=derived)
    write_series(tmp_path / "4", THIN, (5.0, 8.0, 8.0), series="4")[11].unlink()
    assert chosen(tmp_path) == 1


def test_more_slices_then_the_lower_number(tmp_path: Path) -> None:
    write_series(tmp_path / "a", CHEST[:18], (10.0, 8.0, 8.0), series="4")
    write_series(tmp_path / "b", CHEST, (10.0, 8.0, 8.0), series="9")
    write_series(tmp_path / "c", CHEST, (10.0, 8.0, 8.0), series="7")
    assert chosen(tmp_path) == 7


def test_the_note_names_the_choice(tmp_path: Path) -> None:
    write_series(tmp_path / "1", CHEST, (10.0, 8.0, 8.0), series="1")
    write_series(tmp_path / "2", THIN, (5.0, 8.0, 8.0), series="2")
    volume = read_scan(tmp_path)
    assert np.array_equal(volume.array, THIN)
    note = next(f for f in volume.findings if f.code == "series-chosen")
    assert note.found == (
        "1 of 2 series: 40 slices 5.00 mm apart, axial, kernel STANDARD; "
        "not taken: 20 slices 10.00 mm apart, axial, kernel STANDARD"
    )
    assert "several-studies" not in {f.code for f in volume.findings}


def test_no_usable_series_says_why(tmp_path: Path) -> None:
    write_series(tmp_path / "1", CHEST, (10.0, 8.0, 8.0), series="1")[5].unlink()
    write_series(tmp_path / "2", CHEST[:1], (10.0, 8.0, 8.0), series="2")
    assert "missing-slices" in {f.code for f in load(tmp_path).findings}


def test_no_ct_at_all(tmp_path: Path) -> None:
    write_series(tmp_path, CHEST[:3], change=named(Modality="PT"))
    with pytest.raises(QualityError, match="modality PT in 3"):
        candidates(read_contents(tmp_path).slices, [])


# --- several studies -------------------------------------------------------------------------------------------------


def two_studies(folder: Path, first: dict[str, object], second: dict[str, object]) -> None:
    """Series 1 (20 slices) of study 1.2.3 and series 2 (40 slices) of study 1.2.9, with these dates."""
    write_series(folder / "1", CHEST, (10.0, 8.0, 8.0), series="1", change=named(**first))
    changes = named(StudyInstanceUID="1.2.9", **second)
    write_series(folder / "2", THIN, (5.0, 8.0, 8.0), series="2", change=changes)


DATES = [
    ({"StudyDate": "20250301"}, {"StudyDate": "20240301"}, "one 365 days older"),
    ({"StudyDate": "2025.03.02"}, {"StudyDate": "20250301"}, "one 1 day older"),
    (
        {"StudyDate": "20250301", "StudyTime": "1300"},
        {"StudyDate": "20250301", "StudyTime": "115959.9"},
        "one earlier on the same day",
    ),
    ({"SeriesDate": "20250301"}, {"AcquisitionDate": "20250227"}, "one 2 days older"),
    ({"AcquisitionDateTime": "20250301120000"}, {"StudyDate": "20240301"}, "one 365 days older"),
]


@pytest.mark.parametrize(("newer", "older", "said"), DATES)
def test_of_two_studies_the_newest_is_taken(
    tmp_path: Path, newer: dict[str, object], older: dict[str, object], said: str
) -> None:
    two_studies(tmp_path / "first", newer, older)
    two_studies(tmp_path / "second", older, newer)
    for name, array, digest in (("first", CHEST, "1.2.3.4.2"), ("second", THIN, "1.2.3.4.1")):
        volume = read_scan(tmp_path / name)
        assert np.array_equal(volume.array, array)
        warning = next(f for f in volume.findings if f.code == "several-studies")
        assert warning.level == "warning" and "--series" in warning.mend
        assert "the newest of 2 studies is taken" in warning.found and said in warning.found
        assert sha256(digest.encode()).hexdigest()[:8] in warning.found
        assert "2025" not in warning.found and "2024" not in warning.found


UNDECIDED: list[tuple[dict[str, object], dict[str, object]]] = [
    ({}, {}),
    ({"StudyDate": "20250301"}, {}),
    ({"StudyDate": "20250301"}, {"StudyDate": "20250301"}),
    ({"StudyDate": "20250301", "StudyTime": "120000"}, {"StudyDate": "20250301"}),
    ({"StudyDate": "19000101", "StudyTime": "000000"}, {"StudyDate": "19000101", "StudyTime": "000000"}),
]


@pytest.mark.parametrize(("first", "second"), UNDECIDED)
def test_studies_without_an_order_are_an_error_that_asks_for_the_series(
    tmp_path: Path, first: dict[str, object], second: dict[str, object]
) -> None:
    two_studies(tmp_path, first, second)
    with pytest.raises(QualityError, match=r"several-studies: 2 studies, and no date.*--series") as error:
        read_scan(tmp_path)
    for uid, array in (("1.2.3.4.1", CHEST), ("1.2.3.4.2", THIN)):
        digest = sha256(uid.encode()).hexdigest()[:8]
        assert digest in str(error.value)
        for name in (uid, digest, digest[:6].upper()):
            assert np.array_equal(read_scan(tmp_path, series=name).array, array)
            assert chosen_series(tmp_path, series=name).digest.startswith(digest)


def test_two_dates_under_one_study_uid_are_two_studies(tmp_path: Path) -> None:
    write_series(tmp_path / "1", CHEST, (10.0, 8.0, 8.0), series="1", change=named(StudyDate="20250301"))
    write_series(tmp_path / "2", THIN, (5.0, 8.0, 8.0), series="2", change=named(StudyDate="20240301"))
    volume = read_scan(tmp_path)
    assert np.array_equal(volume.array, CHEST)
    assert "one 365 days older" in next(f.found for f in volume.findings if f.code == "several-studies")


def test_a_faulty_newest_study_is_not_replaced_by_an_older_one(tmp_path: Path) -> None:
    two_studies(tmp_path, {"StudyDate": "20240301"}, {"StudyDate": "20250301"})
    sorted((tmp_path / "2").iterdir())[7].unlink()
    levels = {f.code: f.level for f in load(tmp_path).findings}
    assert (levels["several-studies"], levels["missing-slices"]) == ("warning", "error")


def test_a_series_that_is_not_there(tmp_path: Path) -> None:
    for number in range(1, 9):
        write_series(tmp_path / str(number), CHEST[: 2 + number], series=str(number))
    for name, said in (("99999999", "no CT series here"), ("1.2.3", "at least 6 digits"), ("", "at least 6 digits")):
        with pytest.raises(QualityError, match=f"series-not-found: {said}.*and 3 more") as error:
            read_scan(tmp_path, series=name)
        assert "1.2.3.4" not in str(error.value) and len(str(error.value)) < 600


def test_a_series_of_one_of_several_patients_can_be_asked_for(tmp_path: Path) -> None:
    write_series(tmp_path / "1", CHEST, series="1")
    write_series(tmp_path / "2", CHEST, series="2", change=named(PatientID="another"))
    with pytest.raises(QualityError, match=r"several-patients: 2 patients.*--series"):
        read_scan(tmp_path)
    assert read_scan(tmp_path, series="1.2.3.4.2").source.header["series_instance_uid"] == "1.2.3.4.2"


def test_a_file_without_series_has_none_to_ask_for(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(CHEST)
    sitk.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    with pytest.raises(QualityError, match="series-not-found: the file is NIfTI"):
        read_scan(tmp_path / "scan.nii.gz", series="12345678")
