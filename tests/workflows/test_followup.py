"""Follow-up of phantoms from their manifest and from DICOM: files, resumption, faults."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from typer.testing import CliRunner

from m2unet.cli.main import app
from m2unet.cohort.manifest import Manifest, read_manifest, write_manifest
from m2unet.ct.identity import identify_scan
from m2unet.ct.read import read_scan
from m2unet.errors import ManifestError, ScanError
from m2unet.inference.predictor import Predictor, packaged_model
from m2unet.phantom.course import CourseConfig, plan_course
from m2unet.phantom.writer import write_cohort
from m2unet.report.result import SYNTHETIC_WARNING
from m2unet.workflows.followup import GIVEN, PREDICTED, FollowupOptions, follow_patients
from m2unet.workflows.followup_scans import dicom_facts, given_patient, manifest_patients
from m2unet.workflows.run_folder import RunFolder
from tests.ct.samples import chest, write_series
from tests.phantom.conftest import shrunk_plan


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """One patient, three scans on few voxels."""
    plan = plan_course(CourseConfig(patients=1, scans=3, severe_fraction=1.0), seed=3)
    small = shrunk_plan(plan, matrix=72, slices=24)
    return read_manifest(write_cohort(small, tmp_path_factory.mktemp("course"), workers=1))


def follow_all(manifest: Path, out: Path, options: FollowupOptions | None = None) -> list:
    return list(follow_patients(manifest_patients(manifest)[0], out, options or FollowupOptions()))


def test_everything_of_a_patient_is_written(course: Manifest, tmp_path: Path) -> None:
    (outcome,) = follow_all(course.path, tmp_path)
    folder = tmp_path / outcome.patient.name
    document = json.loads((folder / "followup.json").read_text())
    assert document["schema"] == "m2unet.followup/1"
    assert [p["date"] for p in document["points"]] == [row.date.isoformat() for row in course if row.date]
    assert {p["lobes_by"] for p in document["points"]} == {GIVEN}
    assert [step["verdict"] for step in document["steps"]] == ["progress", "regress"]
    rows = list(csv.DictReader((folder / "followup.csv").open()))
    lungs = [row for row in rows if (row["part"], row["figure"]) == ("lungs", "opacity_percent")]
    assert len(lungs) == 3
    assert float(lungs[0]["change"]) == pytest.approx(
        document["steps"][0]["parts"]["lungs"]["opacity_percent"]["change"], abs=1e-4
    )
    page = (folder / "followup.html").read_text()
    assert "Research use only" in page and page.count("data:image/png;base64,") == 4
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert (folder / "followup.png").read_bytes()[:4] == b"\x89PNG"
    (summary,) = csv.DictReader((tmp_path / "followup.csv").open())
    assert summary["verdict"] == document["overall"]["verdict"] and summary["latest"] == "regress"


def test_measured_scans_are_kept_until_they_change(
    course: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow_all(course.path, tmp_path)
    read: list[str] = []

    def counted(path: Path, **options: object) -> object:
        read.append(path.name)
        return read_scan(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("m2unet.workflows.followup.read_scan", counted)
    (again,) = follow_all(course.path, tmp_path)
    assert not read and again.found is not None
    (tmp_path / again.patient.name / f"{course.rows[0].scan_id}.json").write_text("{}")
    follow_all(course.path, tmp_path)
    assert read == [course.rows[0].image.name]


def test_a_bad_scan_does_not_stop_the_others(course: Manifest, tmp_path: Path) -> None:
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"nothing")
    rows = [replace(course.rows[0], image=bad), *course.rows[1:]]
    write_manifest(rows, tmp_path / "m.csv")
    (outcome,) = follow_all(tmp_path / "m.csv", tmp_path / "out")
    assert set(outcome.failed) == {rows[0].scan_id}
    assert outcome.found is not None and len(outcome.found.points) == 2
    result = CliRunner().invoke(app, ["followup", str(tmp_path / "m.csv"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1 and "failed" in result.output
    assert "could not be measured" in (tmp_path / "out" / outcome.patient.name / "followup.html").read_text()


def test_a_model_gives_severity_and_lobes_where_none_are_given(
    course: Manifest, run: RunFolder, tmp_path: Path
) -> None:
    rows = [replace(course.rows[0], lobes=None), course.rows[1]]
    write_manifest(rows, tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="no lobe mask"):
        follow_all(tmp_path / "m.csv", tmp_path / "out")
    (outcome,) = follow_all(tmp_path / "m.csv", tmp_path / "out", FollowupOptions(Predictor.load(run.path)))
    assert outcome.found is not None
    assert [p.lobes_by for p in outcome.found.points] == [PREDICTED, GIVEN]
    change = outcome.found.overall.severity
    assert change.change is not None and change.sigma is not None
    assert "Trained on digital phantoms" in (tmp_path / "out" / outcome.patient.name / "followup.html").read_text()


def test_the_shipped_model_measures_lobes_that_are_not_given(course: Manifest, tmp_path: Path) -> None:
    rows = [replace(course.rows[0], lobes=None), course.rows[1]]
    write_manifest(rows, tmp_path / "m.csv")
    for name, model in (("default", []), ("path", ["--model", str(packaged_model())])):
        call = ["followup", str(tmp_path / "m.csv"), "--out", str(tmp_path / name), "--device", "cpu", *model]
        result = CliRunner().invoke(app, call)
        assert result.exit_code == 0, result.output
        (document,) = (json.loads(path.read_text()) for path in (tmp_path / name).glob("*/followup.json"))
        assert [point["lobes_by"] for point in document["points"]] == [PREDICTED, GIVEN]
        assert [point["severity"] for point in document["points"]] == [None, None]
        assert all("trained on patients" in point["severity_reason"] for point in document["points"])
        assert document["overall"]["severity"]["change"] is None
        assert "trained on patients" in document["overall"]["severity"]["reason"]
        assert document["warnings"] == [SYNTHETIC_WARNING]


def test_severity_without_a_model_is_null_with_a_reason(course: Manifest, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["followup", str(course.path), "--out", str(tmp_path), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    (document,) = (json.loads(path.read_text()) for path in tmp_path.glob("*/followup.json"))
    assert all(point["severity"] is None and point["severity_reason"] for point in document["points"])
    assert document["trained_on"] is None and not document["warnings"], "no model was needed"


def test_rows_without_a_date_are_left_out_and_named(course: Manifest, tmp_path: Path) -> None:
    rows = [replace(course.rows[0], date=None), *course.rows[1:]]
    write_manifest(rows, tmp_path / "m.csv")
    patients, remarks = manifest_patients(tmp_path / "m.csv")
    assert len(patients[0].scans) == 2 and remarks == ["patient 1: 1 scan(s) without a date"]
    write_manifest([replace(row, date=None) for row in rows], tmp_path / "none.csv")
    with pytest.raises(ManifestError, match="two dated scans"):
        manifest_patients(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match="no such patient"):
        manifest_patients(tmp_path / "m.csv", ["nobody"])


def test_dates_and_thickness_come_from_dicom_headers(tmp_path: Path) -> None:
    plan = plan_course(CourseConfig(patients=2, scans=2), seed=4)
    few = replace(shrunk_plan(plan, matrix=40, slices=12), scans=shrunk_plan(plan, matrix=40, slices=12).scans[1:3])
    cohort = read_manifest(write_cohort(few, tmp_path / "dicom", format="dicom", workers=1))
    for row, scan in zip(cohort, few.scans, strict=True):
        facts = dicom_facts(row.image)
        assert facts.date == scan.date
        assert facts.thickness_mm == pytest.approx(scan.protocol.thickness_mm)
    with pytest.raises(ScanError, match="several patients"):
        given_patient([row.image for row in cohort])


def test_scans_given_one_by_one(course: Manifest, tmp_path: Path) -> None:
    images = [row.image for row in course.rows[:2]]
    lobes = [row.lobes for row in course.rows[:2] if row.lobes]
    found = given_patient(images, ["2020-03-09", "2020-03-01"], lobes)
    assert [scan.path for scan in found.scans] == images[::-1], "sorted by date"
    assert found.scans[0].lobes == lobes[1]
    with pytest.raises(ScanError, match="no date"):
        given_patient(images)
    with pytest.raises(ScanError, match="YYYY-MM-DD"):
        given_patient(images, ["1.3.2020", "2020-03-01"])
    with pytest.raises(ScanError, match="as many"):
        given_patient(images, ["2020-03-01"])
    with pytest.raises(ScanError, match="two scans"):
        given_patient(images[:1])


def test_the_thumbnail_shows_the_scan(course: Manifest, tmp_path: Path) -> None:
    from PIL import Image

    (outcome,) = follow_all(course.path, tmp_path)
    picture = np.asarray(Image.open(tmp_path / outcome.patient.name / f"{course.rows[1].scan_id}.png").convert("RGB"))
    assert picture.shape[0] == 300 and picture.std() > 20


def test_of_two_studies_date_and_scan_are_those_of_one(tmp_path: Path) -> None:
    for year, number in (("2025", "3"), ("2024", "2")):
        write_series(tmp_path / f"{2030 - int(year)}", chest((6, 24, 28)), series=number, change=_on(f"{year}0301"))
    assert dicom_facts(tmp_path).date == datetime.date(2025, 3, 1)
    assert identify_scan(tmp_path).series_uid == "1.2.3.4.3"


def _on(date: str) -> Callable[[Dataset, int], None]:
    def change(header: Dataset, _: int) -> None:
        header.StudyDate, header.StudyInstanceUID = date, f"1.2.{date}"

    return change
