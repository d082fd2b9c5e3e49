"""Folders of every command that hold another's results: nothing is exchanged, replaced or lost in silence."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from m2unet.cli.common import failure_code
from m2unet.cohort.folds import Split
from m2unet.cohort.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from m2unet.cohort.store import Store
from m2unet.ct.read import read_scan
from m2unet.errors import ConfigError, OutputError, RunError
from m2unet.inference.predictor import Predictor
from m2unet.phantom.course import CourseConfig, plan_course
from m2unet.phantom.writer import write_cohort
from m2unet.workflows.annotation import propose_masks
from m2unet.workflows.evaluate import evaluate_scans
from m2unet.workflows.followup import FollowupOptions, follow_patients
from m2unet.workflows.followup_scans import PatientScans, given_patient, manifest_patients
from m2unet.workflows.leakage import refuse_other_images
from m2unet.workflows.quantify import quantify_scan, write_quantified
from m2unet.workflows.run_folder import RunFolder, read_json
from tests.phantom.conftest import shrunk_plan
from tests.workflows.stub import StubPredictor


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Two patients, two scans each, on few voxels."""
    plan = shrunk_plan(
        plan_course(CourseConfig(patients=2, scans=2, severe_fraction=1.0), seed=3), matrix=72, slices=24
    )
    return read_manifest(write_cohort(plan, tmp_path_factory.mktemp("course"), workers=1))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def swapped(cohort: Manifest, count: int) -> list[ManifestRow]:
    """The first rows with each other's images: other scans under the same names."""
    rows = list(cohort.rows[:count])
    return [replace(row, image=other.image, lobes=other.lobes) for row, other in zip(rows, reversed(rows), strict=True)]


# --- evaluate --------------------------------------------------------------------------------------------------------


def stub(*errors: BaseException | None) -> Predictor:
    return cast(Predictor, StubPaths(*errors))


class StubPaths(StubPredictor):
    """Takes paths, as evaluations give them."""

    def predict(self, scan: object, **more: object):  # type: ignore[override,no-untyped-def]
        return super().predict(read_scan(cast(Path, scan)), **more)


def test_an_evaluation_of_other_scans_or_another_model_is_not_replaced(cohort: Manifest, tmp_path: Path) -> None:
    rows = [replace(row, lobes=None) for row in cohort.rows[:2]]
    evaluate_scans(stub(), rows, tmp_path)
    before = snapshot(tmp_path)
    other = cast(StubPaths, stub())
    other.identity = replace(other.identity, weights_sha256="cd" * 32)
    for predictor, asked in ((stub(), swapped(cohort, 2)), (stub(), rows[:1]), (cast(Predictor, other), rows)):
        with pytest.raises(RunError, match="evaluation of its own"):
            evaluate_scans(predictor, asked, tmp_path)
    assert snapshot(tmp_path) == before
    more = [replace(row, lobes=None) for row in cohort.rows[:3]]
    assert len(evaluate_scans(stub(), more, tmp_path).scores) == 3  # further scans are welcome


def test_an_unexpected_fault_does_not_end_an_evaluation(
    cohort: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [replace(row, lobes=None) for row in cohort.rows[:3]]
    found = evaluate_scans(stub(None, RuntimeError("CUDA out of memory")), rows, tmp_path)
    assert [score.error for score in found.scores] == [None, "unexpected RuntimeError: CUDA out of memory", None]
    assert "Traceback" in caplog.text
    table = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert len(table) == 3 and table[1]["error"].startswith("unexpected")


# --- followup --------------------------------------------------------------------------------------------------------


def given(course: Manifest, patient: int) -> PatientScans:
    rows = list(course.patients().values())[patient]
    return given_patient(
        [row.image for row in rows], [str(row.date) for row in rows], [row.lobes for row in rows if row.lobes]
    )


def test_patients_given_one_by_one_keep_folders_of_their_own(course: Manifest, tmp_path: Path) -> None:
    for patient in (0, 1):
        list(follow_patients([given(course, patient)], tmp_path, FollowupOptions()))
    folders = sorted(path.parent.name for path in tmp_path.glob("*/followup.json"))
    assert len(folders) == 2 and all(name.startswith("patient-") for name in folders)
    assert [row["patient"] for row in csv.DictReader((tmp_path / "followup.csv").open())] == folders


def test_the_follow_up_of_other_scans_is_not_replaced(course: Manifest, tmp_path: Path) -> None:
    one, two = course.patients().values()
    write_manifest([replace(row, patient_id="p") for row in one], tmp_path / "a.csv")
    write_manifest(
        [replace(row, patient_id="p", scan_id=first.scan_id) for row, first in zip(two, one, strict=True)],
        tmp_path / "b.csv",
    )
    out = tmp_path / "out"
    (first,) = follow_patients(manifest_patients(tmp_path / "a.csv")[0], out, FollowupOptions())
    before = snapshot(out)
    (second,) = follow_patients(manifest_patients(tmp_path / "b.csv")[0], out, FollowupOptions())
    assert first.found is not None and second.found is None
    assert all("other scans" in reason for reason in second.failed.values())
    assert snapshot(out) == before


def test_a_patient_who_cannot_be_compared_leaves_no_old_comparison(
    course: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patients = manifest_patients(course.path)[0]
    list(follow_patients(patients, tmp_path, FollowupOptions()))

    def faulty(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("m2unet.workflows.followup._kept_or_measured", faulty)
    outcomes = list(follow_patients(patients, tmp_path, FollowupOptions()))
    assert [set(outcome.failed.values()) for outcome in outcomes] == [{"unexpected RuntimeError: a fault"}] * 2
    assert not list(tmp_path.glob("*/followup.*"))
    rows = list(csv.DictReader((tmp_path / "followup.csv").open()))
    assert [row["patient"] for row in rows] == sorted(patient.name for patient in patients)
    assert all(row["verdict"] == "" and row["failed"] for row in rows)


def test_somebody_s_table_is_not_replaced(course: Manifest, tmp_path: Path) -> None:
    (tmp_path / "followup.csv").write_text("scan_id,patient_id,image\n")
    with pytest.raises(ConfigError, match=r"followup\.csv"):
        list(follow_patients(manifest_patients(course.path)[0], tmp_path, FollowupOptions()))


# --- quantify --------------------------------------------------------------------------------------------------------


def test_figures_of_another_scan_are_not_replaced(course: Manifest, tmp_path: Path) -> None:
    one, two = course.rows[0], course.rows[2]
    assert one.lobes is not None and two.lobes is not None
    path = write_quantified(quantify_scan(one.image, one.lobes), tmp_path)
    assert len(json.loads(path.read_text())["scan"]["digest"]) == 64
    before = snapshot(tmp_path)
    with pytest.raises(RunError, match="another scan"):
        write_quantified(quantify_scan(two.image, two.lobes), tmp_path)
    assert snapshot(tmp_path) == before
    write_quantified(quantify_scan(one.image, one.lobes), tmp_path, ".mha")
    assert {name for name in snapshot(tmp_path) if name.startswith("opacity")} == {"opacity.mha"}


def test_files_of_somebody_else_are_not_taken_for_figures(course: Manifest, tmp_path: Path) -> None:
    (tmp_path / "lobes.csv").write_text("mine")
    row = course.rows[0]
    assert row.lobes is not None
    with pytest.raises(RunError, match=r"lobes\.csv"):
        write_quantified(quantify_scan(row.image, row.lobes), tmp_path)
    assert snapshot(tmp_path) == {"lobes.csv": b"mine"}


# --- annotate, train -------------------------------------------------------------------------------------------------


def test_proposals_for_another_manifest_are_not_replaced(run: RunFolder, cohort: Manifest, tmp_path: Path) -> None:
    write_manifest([replace(row, lobes=None) for row in cohort.rows[:1]], tmp_path / "a.csv")
    bare = Manifest(tmp_path / "a.csv", (replace(cohort.rows[0], lobes=None),))
    propose_masks(bare, run.path, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    with pytest.raises(RunError, match="another manifest"):
        propose_masks(replace(bare, path=tmp_path / "b.csv"), run.path, tmp_path / "out")
    assert snapshot(tmp_path / "out") == before
    (ranked,) = propose_masks(
        replace(bare, rows=(replace(bare.rows[0], image=cohort.rows[1].image),)), run.path, tmp_path / "out"
    )
    assert ranked.error is not None and "another scan" in ranked.error


def test_a_run_on_other_images_is_not_gone_on_with(run: RunFolder, cohort: Manifest, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    split_values = read_json(run.split_file)
    split = Split(*(tuple(split_values[name]) for name in ("train", "validation", "test")))
    store = Store(run.path.parent / "store", cohort.rows)
    refuse_other_images(store, split, copy)
    known = json.loads((copy / "training_scans.json").read_text())
    known["scans"][0]["content_sha256"] = "0" * 64
    (copy / "training_scans.json").write_text(json.dumps(known))
    with pytest.raises(RunError, match="other images"):
        refuse_other_images(store, split, copy)


def test_folders_that_cannot_be_written_are_found_by_every_workflow(
    run: RunFolder, cohort: Manifest, course: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a file")
    out = tmp_path / "file" / "out"
    with pytest.raises(OutputError):
        evaluate_scans(stub(), cohort.rows[:1], out)
    with pytest.raises(OutputError):
        list(follow_patients(manifest_patients(course.path)[0], out, FollowupOptions()))
    with pytest.raises(OutputError):
        propose_masks(replace(cohort, rows=(replace(cohort.rows[0], lobes=None),)), run.path, out)


@pytest.mark.parametrize(
    ("errors", "cases", "code"),
    [([], 2, 0), (["bad"], 2, 1), (["bad", "bad"], 2, 2), (["bad", "unexpected KeyError: x"], 2, 1)],
)
def test_the_exit_code_of_many_cases(errors: list[str], cases: int, code: int) -> None:
    assert failure_code(errors, cases) == code
