"""Importers: fake trees of the exact layouts become manifests, and every fault is reported at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from m2unet.cohort.importers import settle
from m2unet.cohort.importers.items import ImportOptions
from m2unet.cohort.importers.run import ImportReport, import_data_set
from m2unet.cohort.importers.stoic import years
from m2unet.cohort.manifest import ManifestRow, read_manifest
from m2unet.errors import ConfigError, ManifestError
from tests.cohort.conftest import chest
from tests.cohort.importers import trees


def run(name: str, root: Path, tmp_path: Path, options: ImportOptions | None = None) -> ImportReport:
    report = import_data_set(name, root, tmp_path / "out" / "cohort.csv", options)
    assert read_manifest(tmp_path / "out" / "cohort.csv").rows  # every path in it exists
    return report


def by_id(report: ImportReport) -> dict[str, ManifestRow]:
    return {row.scan_id: row for row in report.rows}


def reasons(report: ImportReport) -> dict[str, str]:
    return {fault.name: fault.reason for fault in (*report.faults, *report.left_out)}


def lobes_of(row: ManifestRow) -> np.ndarray:
    assert row.lobes is not None
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(row.lobes)))


def test_stoic(tmp_path: Path) -> None:
    report = run("stoic", trees.stoic(tmp_path / "stoic"), tmp_path)
    rows = by_id(report)
    assert {name: (row.severity, row.age, row.sex) for name, row in rows.items()} == {
        "13": (1, 35.0, "M"),
        "17": (0, 85.0, "F"),
        "21": (None, 55.0, "F"),  # no COVID-19: neither severe nor non-severe
    }
    assert "eight-bit" in reasons(report)["34"] and "missing" in reasons(report)["99"]
    assert "outcome, not the clinical grade" in (report.label or "")
    assert report.exit_code == 1
    assert "positive RT-PCR" in report.remarks["21"][0]


@pytest.mark.parametrize("text, age", [("035Y", 35.0), ("006M", 0.5), ("", None), ("Y35", None), ("35", None)])
def test_ages_of_dicom(text: str, age: float | None) -> None:
    assert years(text) == age


def test_stoic_without_reading_the_scans(tmp_path: Path) -> None:
    root = trees.stoic(tmp_path / "stoic")
    report = import_data_set("stoic", root, tmp_path / "cohort.csv", check=False)
    assert set(by_id(report)) == {"13", "17", "21", "34"} and set(reasons(report)) == {"99"}


def test_mosmed_grades_by_a_stated_rule(tmp_path: Path) -> None:
    root = trees.mosmed(tmp_path / "COVID19_1110")
    report = run("mosmed", tmp_path, tmp_path)  # the folder above holds it, as the archive unpacks
    assert [row.severity for row in report.rows] == [0, 0, 0, 1, 1]
    assert [row.lesions is not None for row in report.rows] == [False, True, False, False, False]
    assert reasons(report) == {"study_0999_mask.nii.gz": "there is no study of this mask"}
    assert "severe from CT-3 on" in (report.label or "") and "not the clinical grade" in (report.label or "")
    wider = run("mosmed", root, tmp_path / "b", ImportOptions(severe_from=2))
    assert [row.severity for row in wider.rows] == [0, 0, 1, 1, 1]


def test_mosmed_folders_and_masks_that_are_wrong(tmp_path: Path) -> None:
    root = trees.mosmed(tmp_path / "mosmed", studies=2)
    trees.save_in(chest(0)[0], root / "studies/CT-4/study_0000.nii.gz")
    trees.save_in(chest(0)[0], root / "studies/CT-9/study_0005.nii.gz")
    trees.save_in(np.ones((3, 3, 3), np.uint8), root / "masks/study_0000_mask.nii.gz")
    report = run("mosmed", root, tmp_path)
    assert len(report.rows) == 2 and by_id(report)["study_0000"].lesions is None
    assert "shape (3, 3, 3)" in report.remarks["study_0000"][-1]
    assert "CT-0 and in CT-4" in reasons(report)["study_0000"] and "CT-9" in reasons(report)


def test_totalsegmentator_merges_lobes_and_leaves_out_what_is_no_chest(tmp_path: Path) -> None:
    root = trees.totalsegmentator(tmp_path / "ts")
    report = run("totalsegmentator", root, tmp_path)
    rows = by_id(report)
    assert set(rows) == {"s0000", "s0001"}
    assert np.array_equal(lobes_of(rows["s0001"]), chest(201)[1])
    assert (rows["s0001"].age, rows["s0001"].sex, rows["s0001"].site) == (41.0, "F", "TotalSegmentator A")
    assert [fault.name for fault in report.left_out] == ["s0900", "s0901"]
    assert reasons(report)["s0900"] == "it shows no lobe: not a chest"
    assert reasons(report)["s0901"] == "it shows 2 of 5 lobes: RLL, LLL"
    assert [fault.name for fault in report.faults] == ["s0902"] and "middle_lobe" in report.faults[0].reason
    partial = run("totalsegmentator", root, tmp_path / "b", ImportOptions(min_lobes=2))
    assert set(by_id(partial)) == {"s0000", "s0001", "s0901"}
    assert "shows 2 of 5 lobes: RLL, LLL" in partial.remarks["s0901"]


def test_luna16_codes_strays_and_missing_scans(tmp_path: Path) -> None:
    report = run("luna16-lobes", trees.luna16(tmp_path / "luna"), tmp_path)
    (row,) = report.rows
    expected = chest(300)[1].copy()
    expected[0, 0, :3], expected[8, 40, 40] = (0, 6, 6), 6
    assert row.scan_id == trees.LUNA_UID and np.array_equal(lobes_of(row), expected)
    said = report.remarks[trees.LUNA_UID]
    assert "stray code 1 in 1 voxels, taken as background" in said
    assert "stray code 513 in 1 voxels, taken as airway" in said
    assert "1.2.3" in reasons(report)


def test_real_lobe_map_of_luna16(real_data: Path, tmp_path: Path) -> None:
    root = trees.luna16_real(tmp_path / "luna", real_data / "lobe-maps")
    report = run("luna16-lobes", root, tmp_path)
    assert not report.faults and not report.left_out
    (row,) = report.rows
    raw = SimpleITK.GetArrayFromImage(
        SimpleITK.ReadImage(str(real_data / "lobe-maps" / f"{row.scan_id}_LobeSegmentation.nrrd"))
    )
    ours = lobes_of(row)
    for theirs, code in ((4, 1), (5, 2), (6, 3), (7, 4), (8, 5)):
        assert np.array_equal(ours == code, raw == theirs)
    assert np.array_equal(ours == 6, raw >> 8 == 2)


def test_covid_ct_seg_refuses_8_bit_volumes_unless_they_are_mapped_back(tmp_path: Path) -> None:
    root = trees.covid_ct_seg(tmp_path / "seg")
    report = run("covid-ct-seg", root, tmp_path)
    assert set(by_id(report)) == {"coronacases_001"}
    (row,) = report.rows
    assert row.lobes is None and row.severity is None and row.lesions is not None
    refused = reasons(report)["radiopaedia_10_85902_1"]
    assert "eight-bit" in refused and "--rescale-8bit" in refused
    rescaled = run("covid-ct-seg", root, tmp_path / "b", ImportOptions(rescale_8bit=True))
    rows = by_id(rescaled)
    assert len(rows) == 3 and {rows[n].patient_id for n in rows if n.startswith("radio")} == {"radiopaedia_10"}
    assert reasons(rescaled)["radiopaedia_10_85902_3"].startswith("its infection mask is missing")
    hu = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(rows["radiopaedia_10_85902_1"].image)))
    assert np.abs(hu - np.clip(chest(401)[0], -1250, 250)).max() <= 4  # half a step of 5.9 HU, rounded
    assert "mapped from 0-255 back to [-1250, 250] HU" in rescaled.remarks["radiopaedia_10_85902_1"][0]


def test_names_as_kaggle_has_them(tmp_path: Path) -> None:
    hu, lobes = chest(0)
    trees.save_in(hu, tmp_path / "k/ct_scans/radiopaedia_org_covid-19-pneumonia-10_85902_1-dcm.nii")
    trees.save_in((lobes == 1).astype(np.uint8), tmp_path / "k/infection_mask/radiopaedia_10_85902_1.nii")
    (row,) = run("covid-ct-seg", tmp_path / "k", tmp_path).rows
    assert row.scan_id == "radiopaedia_10_85902_1" and row.lesions is not None


def test_masks_of_lungmask(tmp_path: Path) -> None:
    report = run("lungmask-masks", trees.mask_folder(tmp_path / "lm"), tmp_path)
    (row,) = report.rows
    assert row.scan_id == "a" and np.array_equal(lobes_of(row), chest(500 + ord("a"))[1])
    assert "LTRCLobes" in reasons(report)["b"] and reasons(report)["c.nii.gz"] == "it has no mask"


def test_masks_of_another_tool_beside_images_elsewhere(tmp_path: Path) -> None:
    theirs = np.array([0, 20, 21, 22, 10, 11], np.uint8)
    hu, lobes = chest(7)
    trees.save_in(hu, tmp_path / "ct/x y.nii.gz")
    trees.save_in(theirs[lobes], tmp_path / "m/x y.nii.gz")
    options = ImportOptions(images=tmp_path / "ct", codes="lola11")
    (row,) = run("lungmask-masks", tmp_path / "m", tmp_path, options).rows
    assert row.scan_id == "x-y" and np.array_equal(lobes_of(row), lobes)
    with pytest.raises(ManifestError, match=r"lobe_codes='lola11'"):
        run("lungmask-masks", tmp_path / "m", tmp_path / "b", ImportOptions(images=tmp_path / "ct"))


def test_a_second_call_does_only_what_is_missing(tmp_path: Path) -> None:
    root = trees.totalsegmentator(tmp_path / "ts")
    first = run("totalsegmentator", root, tmp_path)
    masks = sorted((tmp_path / "out/cohort_import/masks").iterdir())
    before = [path.stat().st_mtime_ns for path in masks]
    masks[0].unlink()
    second = run("totalsegmentator", root, tmp_path)
    assert second == first
    after = [path.stat().st_mtime_ns for path in masks]
    assert after[0] != before[0] and after[1:] == before[1:]
    trees.save_in(np.zeros_like(chest(0)[1]), root / "s0000/segmentations/lung_middle_lobe_right.nii.gz")
    assert reasons(run("totalsegmentator", root, tmp_path))["s0000"] == "it shows 4 of 5 lobes: RUL, RLL, LUL, LLL"


def test_what_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = trees.luna16(tmp_path / "luna")

    def no_memory(*_: object) -> None:
        raise MemoryError

    for error in (no_memory, lambda *_: 1 / 0):
        monkeypatch.setattr(settle, "load", error)
        with pytest.raises(ManifestError, match=r"not enough memory|unexpected ZeroDivisionError"):
            run("luna16-lobes", root, tmp_path)
    monkeypatch.undo()
    assert len(run("luna16-lobes", root, tmp_path).rows) == 1


def test_the_report_file_holds_everything(tmp_path: Path) -> None:
    report = run("luna16-lobes", trees.luna16(tmp_path / "luna"), tmp_path)
    held = json.loads((tmp_path / "out/cohort_import/report.json").read_text())
    assert held["imported"] == 1 and held["data_set"] == "luna16-lobes" and held["label"] is None
    assert [fault["name"] for fault in held["faults"]] == [fault.name for fault in report.faults]
    assert held["remarks"] == {name: list(said) for name, said in report.remarks.items()}


def test_two_processes_find_the_same(tmp_path: Path) -> None:
    root = trees.mosmed(tmp_path / "mosmed", studies=2)
    one = import_data_set("mosmed", root, tmp_path / "a.csv")
    two = import_data_set("mosmed", root, tmp_path / "b.csv", workers=2)
    assert one == two


def test_what_is_no_data_set_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, said in (
        ("stoic", r"data/mha"),
        ("mosmed", "studies"),
        ("totalsegmentator", "ct.nii.gz"),
        ("luna16-lobes", "annotations"),
        ("covid-ct-seg", "COVID-19-CT-Seg_20cases"),
        ("lungmask-masks", "images"),
    ):
        with pytest.raises(ManifestError, match=said):
            import_data_set(name, tmp_path / "empty", tmp_path / "out.csv")
    with pytest.raises(ManifestError, match="no such folder"):
        import_data_set("stoic", tmp_path / "nowhere", tmp_path / "out.csv")
    with pytest.raises(ConfigError, match="one of stoic, mosmed"):
        import_data_set("other", tmp_path, tmp_path / "out.csv")
    with pytest.raises(ConfigError, match="severe_from does not concern stoic"):
        import_data_set("stoic", tmp_path, tmp_path / "out.csv", ImportOptions(severe_from=2))
    assert not (tmp_path / "out.csv").exists()
