from __future__ import annotations

import csv
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m2unet.cohort.manifest import read_manifest
from m2unet.cohort.masks import read_lobe_mask
from m2unet.ct.read import read_scan
from m2unet.errors import ConfigError
from m2unet.phantom.cohort import CohortConfig, CohortPlan, plan_cohort
from m2unet.phantom.dicom import uid
from m2unet.phantom.protocol import SITES
from m2unet.phantom.scan import make_scan
from m2unet.phantom.writer import write_cohort

from .conftest import shrunk_plan


@pytest.fixture(scope="module")
def tiny() -> CohortPlan:
    """Four scans of two patients on few voxels, three of them with lobe masks."""
    config = CohortConfig(size="small", scans=4, patients=2, severe_fraction=0.5, lobe_masks=3)
    return shrunk_plan(plan_cohort(config, seed=11))


@pytest.fixture(scope="module")
def written(tiny: CohortPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tiny, tmp_path_factory.mktemp("cohort"), workers=1).parent


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_manifest_says_what_was_planned(tiny: CohortPlan, written: Path) -> None:
    manifest = read_manifest(written / "manifest.csv")
    assert manifest.warnings == ()
    assert len(manifest.with_lobes()) == 3
    for row, scan in zip(manifest, tiny.scans, strict=True):
        patient = tiny.patient_of(scan)
        assert (row.scan_id, row.patient_id) == (scan.scan_id, patient.patient_id)
        assert (row.severity, row.grade) == (int(patient.severe), patient.grade)
        assert (row.site, row.age, row.sex, row.date) == (
            SITES[scan.protocol.site].name,
            patient.age,
            patient.anatomy.sex,
            scan.date,
        )
        assert row.lesions is not None


def test_files_hold_the_scan_voxel_for_voxel(tiny: CohortPlan, written: Path) -> None:
    row = read_manifest(written / "manifest.csv").with_lobes()[0]
    made = make_scan(tiny, row.scan_id)
    volume = read_scan(row.image)
    np.testing.assert_array_equal(np.maximum(volume.array, -1024), np.maximum(made.volume.array, -1024))
    np.testing.assert_allclose(volume.spacing_mm, made.volume.spacing_mm, rtol=1e-5)
    np.testing.assert_allclose(volume.affine, made.volume.affine, atol=1e-3)
    assert volume.source.flips == made.volume.source.flips
    assert row.lobes is not None
    np.testing.assert_array_equal(read_lobe_mask(row.lobes, volume), made.lobes)


def test_truth_and_readme(tiny: CohortPlan, written: Path) -> None:
    with (written / "truth.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    made = make_scan(tiny, rows[1]["scan_id"])
    assert float(rows[1]["RLL_opacified"]) == pytest.approx(made.truth.opacified[2], abs=1e-3)
    assert float(rows[1]["LUL_consolidation"]) == pytest.approx(made.truth.percent[3, 2], abs=1e-3)
    assert float(rows[1]["scan_score"]) == pytest.approx(made.truth.score, abs=1e-3)
    assert [int(row["flipped"]) for row in rows] == [int(tiny.patient_of(scan).flipped) for scan in tiny.scans]
    assert "synthetic" in (written / "README.txt").read_text(encoding="utf-8")


def test_the_files_do_not_depend_on_the_workers(tiny: CohortPlan, written: Path, tmp_path: Path) -> None:
    write_cohort(tiny, tmp_path, workers=2)
    assert contents(tmp_path) == contents(written)


def test_finished_scans_are_skipped_and_lost_ones_made_again(
    tiny: CohortPlan, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from m2unet.phantom import writer

    folder = tmp_path / "copy"
    shutil.copytree(written, folder)
    lost, stale = tiny.scans[0].scan_id, tiny.scans[3].scan_id
    (folder / "lesions" / f"{lost}.nii.gz").unlink()
    (folder / "truth" / f"{stale}.json").write_text("{broken", encoding="utf-8")
    made: list[str] = []
    monkeypatch.setattr(writer, "make_scan", lambda plan, name, patient: made.append(name) or make_scan(plan, name))
    told: list[tuple[int, int]] = []
    write_cohort(tiny, folder, workers=1, progress=lambda done, total: told.append((done, total)))
    assert made == [lost, stale]
    assert told == [(2, 4), (3, 4), (4, 4)]
    assert contents(folder) == contents(written)


def test_more_lobe_masks_later(tiny: CohortPlan, written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(written, folder)
    every = tiny.with_lobe_masks(scan.scan_id for scan in tiny.scans)
    assert len(read_manifest(write_cohort(every, folder, workers=1)).with_lobes()) == 4


def test_another_cohort_is_not_mixed_in(tiny: CohortPlan, written: Path) -> None:
    with pytest.raises(ConfigError, match="another phantom cohort"):
        write_cohort(replace(tiny, seed=12), written)
    with pytest.raises(ConfigError, match="nifti or dicom"):
        write_cohort(tiny, written, format="jpeg")  # type: ignore[arg-type]


def test_a_broken_note_counts_as_another_cohort(tiny: CohortPlan, tmp_path: Path) -> None:
    (tmp_path / "cohort.json").write_text("?", encoding="utf-8")
    with pytest.raises(ConfigError, match="another phantom cohort"):
        write_cohort(tiny, tmp_path)


@pytest.fixture(scope="module")
def dicom(tiny: CohortPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    one = replace(tiny, scans=tiny.scans[:1])
    return write_cohort(one, tmp_path_factory.mktemp("dicom"), format="dicom").parent


def test_dicom_and_nifti_hold_the_same_scan(written: Path, dicom: Path) -> None:
    row = read_manifest(dicom / "manifest.csv").rows[0]
    series, file = read_scan(row.image), read_scan(written / "images" / f"{row.scan_id}.nii.gz")
    np.testing.assert_array_equal(np.maximum(series.array, -1024), np.maximum(file.array, -1024))
    np.testing.assert_allclose(series.affine, file.affine, atol=1e-3)
    assert not [finding for finding in series.findings if finding.level == "error"]


def test_dicom_headers(dicom: Path, tiny: CohortPlan) -> None:
    import pydicom

    folder = read_manifest(dicom / "manifest.csv").rows[0].image
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    scan = tiny.scans[0]
    assert len(slices) == scan.protocol.slices
    assert len({item.SOPInstanceUID for item in slices}) == len(slices)
    assert len({item.SeriesInstanceUID for item in slices}) == 1
    assert all(pydicom.uid.UID(item.SOPInstanceUID).is_valid for item in slices)
    assert slices[0].PatientID == scan.patient_id
    assert slices[0].RescaleIntercept == -1024
    assert slices[0].PixelPaddingValue == SITES[scan.protocol.site].padding + 1024
    assert uid("a", 1) == uid("a", 1) != uid("a", 2)


def test_dicom_passes_an_independent_validator(dicom: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    folder = read_manifest(dicom / "manifest.csv").rows[0].image
    found = subprocess.run(["dciodvfy", str(min(folder.iterdir()))], capture_output=True, text=True, check=False)
    assert "CTImage" in found.stderr + found.stdout
    assert "Error" not in found.stderr + found.stdout


def test_the_note_names_the_seed(written: Path) -> None:
    assert json.loads((written / "cohort.json").read_text(encoding="utf-8"))["seed"] == 11
