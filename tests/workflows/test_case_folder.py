"""Folders of cases: results are never lost, exchanged or left over, whatever comes in between."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from m2unet.ct.identity import identify_scan
from m2unet.inference.predictor import Predictor
from m2unet.report.result import ResultDocument
from m2unet.workflows import case as case_module
from m2unet.workflows.case import CaseOptions
from m2unet.workflows.case_folder import CLAIM_FILE, CaseFolder, OccupiedError, SourceRecord
from m2unet.workflows.dicom import export_dicom
from m2unet.workflows.predict import Case, CaseOutcome, find_cases, predict_cases
from tests.workflows.stub import StubPredictor, write_patient

PLAIN = CaseOptions(montage=False, report=False)
WHOLE = CaseOptions(exporters=(export_dicom,))


def run(
    out: Path, *cases: Case | Path, stub: StubPredictor | None = None, options: CaseOptions = PLAIN
) -> list[CaseOutcome]:
    given = [case if isinstance(case, Case) else find_cases([case])[0] for case in cases]
    return list(predict_cases(cast(Predictor, stub or StubPredictor()), given, out, options))


def digests(out: Path) -> dict[str, str | None]:
    found = {}
    for path in sorted(out.glob("*/result.json")):
        found[path.parent.name] = ResultDocument.model_validate_json(path.read_text()).scan.digest
    return found


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two patients whose scans have the same folder name."""
    folder = tmp_path_factory.mktemp("pacs")
    return write_patient(folder / "a" / "CT", "AAA^ONE", "1"), write_patient(folder / "b" / "CT", "BBB^TWO", "2")


def test_names_do_not_depend_on_order_number_or_time_of_the_calls(patients: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = patients
    run(tmp_path / "together", one, two)
    run(tmp_path / "turned", two, one)
    run(tmp_path / "apart", one)
    run(tmp_path / "apart", two)
    expected = {f"CT-{identify_scan(path).short}": identify_scan(path).digest for path in patients}
    assert digests(tmp_path / "together") == digests(tmp_path / "turned") == digests(tmp_path / "apart") == expected


def test_a_scan_given_twice_is_one_case(patients: tuple[Path, Path], tmp_path: Path) -> None:
    copied = tmp_path / "copy" / "CT"
    shutil.copytree(patients[0], copied, copy_function=shutil.copy)  # other modification times
    assert len(find_cases([patients[0], patients[0], patients[0] / "."])) == 1
    stub = StubPredictor()
    outcomes = run(tmp_path / "out", patients[0], copied, stub=stub)
    assert [outcome.skipped for outcome in outcomes] == [False, True] and stub.predicted == 1


def test_another_scan_s_result_is_never_written_into(patients: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = patients
    run(tmp_path, Case("x", one))
    before = {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()}
    stub = StubPredictor()
    for options in (PLAIN, replace(PLAIN, overwrite=True)):
        (outcome,) = run(tmp_path, Case("x", two), stub=stub, options=options)
        assert outcome.error is not None and "another scan" in outcome.error and "--name" in outcome.error
    (outcome,) = run(tmp_path, Case("x", two / "nothing here"), stub=stub)
    assert outcome.error is not None and "not-found" in outcome.error
    assert stub.predicted == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()} == before
    record = SourceRecord.read(CaseFolder(tmp_path, "x").source_file)
    assert record is not None and record.path == str(one)


def test_scans_that_share_a_series_uid_are_not_one(tmp_path: Path) -> None:
    def same_series(header: object) -> None:
        header.SeriesInstanceUID = "1.2.3"  # type: ignore[attr-defined]

    one = write_patient(tmp_path / "a" / "CT", "AAA^ONE", "1", change=same_series)
    two = write_patient(tmp_path / "b" / "CT", "BBB^TWO", "2", change=same_series)
    outcomes = run(tmp_path / "out", one, two)
    assert outcomes[0].error is None
    assert outcomes[1].error is not None and "another scan" in outcomes[1].error


def test_the_same_place_with_another_scan_is_another_case(patients: tuple[Path, Path], tmp_path: Path) -> None:
    """As in a container whose input always has the same path; also with equal names, sizes and times."""
    place = tmp_path / "input"
    for source in patients:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place)
        for file in place.iterdir():
            os.utime(file, (1, 1))
        assert [outcome.skipped for outcome in run(tmp_path / "out", place)] == [False]
    assert len(digests(tmp_path / "out")) == 2


def test_names_that_differ_in_capitals_alone_are_one(patients: tuple[Path, Path], tmp_path: Path) -> None:
    run(tmp_path, Case("Fall1", patients[0]))
    (outcome,) = run(tmp_path, Case("fall1", patients[1]))
    assert outcome.error is not None and "capitals" in outcome.error
    assert list(digests(tmp_path)) == ["Fall1"]


def test_a_failure_removes_its_own_results_alone(patients: tuple[Path, Path], tmp_path: Path) -> None:
    run(tmp_path, *patients, options=WHOLE)
    names = list(digests(tmp_path))
    mine = tmp_path / f"CT-{identify_scan(patients[0]).short}"
    assert {"lobes.nii.gz", "lobes.seg.dcm", "report.sr.dcm", "report.html"} <= {p.name for p in mine.iterdir()}
    (mine / "notes.txt").write_text("by hand")
    (mine / "lobes.mha").write_text("somebody's own")
    other = {path.name for path in (tmp_path / names[names[0] == mine.name]).iterdir()}
    redo = replace(WHOLE, overwrite=True)
    (outcome,) = run(tmp_path, patients[0], stub=StubPredictor(RuntimeError("CUDA out of memory")), options=redo)
    assert outcome.unexpected and outcome.error == "unexpected RuntimeError: CUDA out of memory"
    assert {path.name for path in mine.iterdir()} == {"error.json", "notes.txt", "lobes.mha"}
    assert {path.name for path in (tmp_path / names[names[0] == mine.name]).iterdir()} == other
    error = json.loads((mine / "error.json").read_text())
    assert error["scan_digest"] == identify_scan(patients[0]).digest and error["case"] == mine.name
    (refused,) = run(tmp_path, patients[0], options=WHOLE)  # it might replace what is somebody's own
    assert refused.error is not None and "lobes.mha" in refused.error
    (mine / "lobes.mha").unlink()
    (again,) = run(tmp_path, patients[0], options=WHOLE)
    assert again.error is None and not (mine / "error.json").exists() and (mine / "notes.txt").exists()


def test_files_of_somebody_else_are_left_alone(patients: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "lobes.nii.gz").write_text("drawn by hand")
    (outcome,) = run(tmp_path, Case("x", patients[0]))
    assert outcome.error is not None and "lobes.nii.gz" in outcome.error
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["lobes.nii.gz"]
    (tmp_path / "y").write_text("a file")
    (outcome,) = run(tmp_path, Case("y", patients[0]))
    assert outcome.error is not None and (tmp_path / "y").read_text() == "a file"


def test_killed_while_writing_leaves_no_mixture(
    patients: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier result no longer counts from the moment its files are replaced; the next call puts things right."""
    scan = Case("x", patients[0])
    run(tmp_path, scan, options=WHOLE)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(case_module, "_write_pictures", killed)
    monkeypatch.setattr(CaseFolder, "release", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, scan, options=replace(WHOLE, overwrite=True))
    monkeypatch.undo()
    folder = tmp_path / "x"
    assert (folder / "lobes.nii.gz").exists() and not (folder / "result.json").exists()
    (refused,) = run(tmp_path, Case("x", patients[1]))
    assert refused.error is not None and "another scan" in refused.error
    (again,) = run(tmp_path, scan, options=PLAIN)
    assert again.error is None and not again.skipped
    assert {path.name for path in folder.iterdir()} == {"lobes.nii.gz", "opacity.nii.gz", "result.json"}


def test_of_two_processes_one_has_the_folder(patients: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = (identify_scan(path) for path in patients)
    folder = CaseFolder(tmp_path, "x")
    claim = folder.claim(one, SourceRecord("x", one.digest, one.images, "a"))
    with pytest.raises(OccupiedError, match="another scan"):
        folder.claim(two, SourceRecord("x", two.digest, two.images, "b"))
    assert not claim.resumed and folder.claim(one, SourceRecord("x", one.digest, one.images, "a")).resumed
    folder.release()
    assert not folder.path.exists() and not (tmp_path / "x" / CLAIM_FILE).exists()
    assert not folder.claim(two, SourceRecord("x", two.digest, two.images, "b")).resumed


def test_what_another_process_finished_meanwhile_is_kept(patients: tuple[Path, Path], tmp_path: Path) -> None:
    class Overtaken(StubPredictor):
        def predict(self, volume: object, **_: object) -> object:  # type: ignore[override]
            (tmp_path / "x" / "result.json").write_text("{}")
            raise RuntimeError("a fault")

    (outcome,) = run(tmp_path, Case("x", patients[0]), stub=Overtaken())
    assert outcome.unexpected and not (tmp_path / "x" / "error.json").exists()


def test_a_result_of_an_earlier_version_belongs_to_the_scan_whose_files_it_knows(
    patients: tuple[Path, Path], tmp_path: Path
) -> None:
    run(tmp_path, Case("x", patients[0]))
    shutil.rmtree(tmp_path / "sources")
    kept = json.loads((tmp_path / "x" / "result.json").read_text())
    del kept["scan"]["digest"], kept["scan"]["images"]
    (tmp_path / "x" / "result.json").write_text(json.dumps(kept))
    (refused,) = run(tmp_path, Case("x", patients[1]))
    assert refused.error is not None
    (outcome,) = run(tmp_path, Case("x", patients[0]))
    assert outcome.error is None and not outcome.skipped and digests(tmp_path)["x"] is not None


def test_a_failure_of_a_path_goes_when_the_scan_can_be_read(patients: tuple[Path, Path], tmp_path: Path) -> None:
    place, out = tmp_path / "CT", tmp_path / "out"
    (failed,) = run(out, place)
    assert failed.error is not None and (failed.folder / "error.json").exists()
    shutil.copytree(patients[0], place)
    (done,) = run(out, place)
    assert done.error is None and not failed.folder.exists() and list(digests(out)) == [done.name]
    assert [path.name for path in (out / "sources").iterdir()] == [done.name]


def test_results_inside_the_study_are_no_part_of_it(patients: tuple[Path, Path], tmp_path: Path) -> None:
    study = tmp_path / "CT"
    shutil.copytree(patients[0], study)
    for out in (study, study / "results"):
        (first,) = run(out, study, options=WHOLE)
        (second,) = run(out, study, options=WHOLE)
        assert first.error is None and second.skipped and second.result == first.result
