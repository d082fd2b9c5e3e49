"""Which of several series is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from m2unet.ct.dicom import candidates, choose
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
    write_series(tmp_path / "2", THIN, (5.0, 8.0, 8.0), series="2", change=named(StudyInstanceUID="1.2.9"))
    volume = read_scan(tmp_path)
    assert np.array_equal(volume.array, THIN)
    note = next(f for f in volume.findings if f.code == "series-chosen")
    assert note.found == (
        "1 of 2 series: 40 slices 5.00 mm apart, axial, kernel STANDARD; "
        "not taken: 20 slices 10.00 mm apart, axial, kernel STANDARD"
    )
    assert {f.code: f.level for f in volume.findings}["several-studies"] == "warning"


def test_no_usable_series_says_why(tmp_path: Path) -> None:
    write_series(tmp_path / "1", CHEST, (10.0, 8.0, 8.0), series="1")[5].unlink()
    write_series(tmp_path / "2", CHEST[:1], (10.0, 8.0, 8.0), series="2")
    assert "missing-slices" in {f.code for f in load(tmp_path).findings}


def test_no_ct_at_all(tmp_path: Path) -> None:
    write_series(tmp_path, CHEST[:3], change=named(Modality="PT"))
    with pytest.raises(QualityError, match="modality PT in 3"):
        candidates(read_contents(tmp_path).slices, [])
