"""The table and the page of a folder of results cover all that it holds."""

from __future__ import annotations

import csv
import json
import multiprocessing
import shutil
from pathlib import Path
from typing import cast

import pytest
from typer.testing import CliRunner

from m2unet.cli.main import app
from m2unet.ct.identity import identify_scan
from m2unet.errors import ConfigError
from m2unet.inference.predictor import Predictor
from m2unet.workflows import collect as collect_module
from m2unet.workflows.case import CaseOptions
from m2unet.workflows.collect import CohortFolder, collect_results
from m2unet.workflows.predict import Case, predict_cases
from tests.workflows.stub import StubPredictor, write_patient

PLAIN = CaseOptions(montage=False, report=False)
LETTERS = "ABCD"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pacs")
    return {letter: write_patient(folder / letter, f"{letter * 4}^X", f"{letter}{letter}-1") for letter in LETTERS}


def predict(out: Path, cases: dict[str, Path], options: CaseOptions = PLAIN, *errors: Exception | None) -> None:
    given = [Case(name, path) for name, path in cases.items()]
    list(predict_cases(cast(Predictor, StubPredictor(*errors)), given, out, options))


def rows(out: Path, file: str = "cohort.csv") -> dict[str, dict[str, str]]:
    with (out / file).open(encoding="utf-8") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


def test_later_calls_add_to_the_table_and_failures_are_in_it(scans: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(out, {"one": scans["A"]}, CaseOptions())
    assert list(rows(out)) == ["one"] and "one/report.html" in (out / "cohort.html").read_text()
    predict(out, {"two": scans["B"], "three": scans["C"]}, CaseOptions(), RuntimeError("a fault"), None)
    assert {name: row["status"] for name, row in rows(out).items()} == {
        "one": "done", "three": "done", "two": "failed"
    }  # fmt: skip
    page = (out / "cohort.html").read_text()
    assert all(f">{name}" in page for name in ("one", "two", "three")) and "a fault" in page
    for name, letter in (("one", "A"), ("two", "B"), ("three", "C")):
        digest = identify_scan(scans[letter]).digest
        assert rows(out)[name]["scan_digest"] == digest and digest[:8] in page
        source = rows(out, "sources.csv")[name]
        assert source["path"] == str(scans[letter]) and source["scan_digest"] == digest
        assert source["series_instance_uid"].startswith("1.2.")
    predict(out, {"four": scans["D"]}, PLAIN)  # without a page of its own the one that is there stays whole
    assert "four" in (out / "cohort.html").read_text()
    shutil.rmtree(out / "one")
    assert {case.folder for case in collect_results(out).cases} == {"two", "three", "four"} == set(rows(out))


def test_the_table_is_whole_after_every_case(scans: dict[str, Path], tmp_path: Path) -> None:
    given = [Case(letter, path) for letter, path in scans.items()]
    seen = []
    for outcome in predict_cases(cast(Predictor, StubPredictor()), given, tmp_path, PLAIN):
        seen.append(outcome.name)
        assert list(rows(tmp_path)) == seen


def test_own_columns_are_handed_through(scans: dict[str, Path], tmp_path: Path) -> None:
    cases = [Case("a", scans["A"], extra={"crp_mg_l": "51", "status": "mine"}), Case("b", scans["B"])]
    list(predict_cases(cast(Predictor, StubPredictor()), cases, tmp_path, PLAIN))
    table = rows(tmp_path)
    assert (table["a"]["crp_mg_l"], table["a"]["own_status"], table["a"]["status"]) == ("51", "mine", "done")
    assert table["b"]["crp_mg_l"] == ""
    assert "crp" not in (tmp_path / "a" / "result.json").read_text()


def _one(out: Path, name: str, scan: Path) -> None:
    predict(out, {name: scan})


def test_processes_beside_each_other_leave_one_whole_table(scans: dict[str, Path], tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    running = [
        context.Process(target=_one, args=(tmp_path, letter, path), daemon=True) for letter, path in scans.items()
    ]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * len(running)
    assert set(rows(tmp_path)) == set(scans) == set(rows(tmp_path, "sources.csv"))


def test_a_case_that_ends_while_the_table_is_written_is_in_it(
    scans: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(tmp_path / "other", {"late": scans["B"]})
    write, late = collect_module.write_cohort_page, tmp_path / "out" / "late"

    def slow(*args: object, **more: object) -> object:
        found = write(*args, **more)  # type: ignore[arg-type]
        if not late.exists():
            shutil.copytree(tmp_path / "other" / "late", late)
        return found

    monkeypatch.setattr(collect_module, "write_cohort_page", slow)
    predict(tmp_path / "out", {"early": scans["A"]})
    assert set(rows(tmp_path / "out")) == {"early", "late"}


def test_what_was_read_is_not_read_again(
    scans: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(tmp_path, scans)
    read: list[str] = []
    load = CohortFolder._load
    monkeypatch.setattr(CohortFolder, "_load", lambda self, name: (read.append(name), load(self, name))[1])
    folder = CohortFolder(tmp_path)
    folder.collect()
    assert sorted(read) == list(LETTERS)
    before = (tmp_path / "cohort.csv").stat().st_mtime_ns
    folder.collect()
    predict(tmp_path, {"A": scans["A"]}, CaseOptions(seed=1, montage=False, report=False))
    assert (tmp_path / "cohort.csv").stat().st_mtime_ns > before
    read.clear()
    folder.collect()
    assert read == ["A"]


def test_files_of_somebody_else_are_not_replaced(scans: dict[str, Path], tmp_path: Path) -> None:
    for name in ("cohort.csv", "sources.csv", "cohort.html"):
        out = tmp_path / name
        out.mkdir()
        (out / name).write_text("scan_id,patient_id,image\n")
        with pytest.raises(ConfigError, match=name):
            predict(out, {"a": scans["A"]})
        assert [path.name for path in out.iterdir()] == [name]
        assert (out / name).read_text() == "scan_id,patient_id,image\n"


def test_other_folders_are_no_cases(scans: dict[str, Path], tmp_path: Path) -> None:
    predict(tmp_path, {"a": scans["A"]})
    for name, content in (("foreign", '{"schema": "other"}'), ("list", "[1]"), (".hidden", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(content)
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "result.json").write_text(json.dumps({"schema_version": "m2unet.result/9"}))
    found = {case.folder: case.error for case in collect_results(tmp_path).cases}
    assert set(found) == {"a", "newer"} and "another version" in str(found["newer"])


def test_the_command_makes_them_anew(scans: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(out, {"a": scans["A"], "b": scans["B"]})
    for name in ("cohort.csv", "sources.csv"):
        (out / name).unlink()
    result = CliRunner().invoke(app, ["collect", str(out)])
    assert result.exit_code == 0 and "2 cases, 0 of them failed" in result.output
    assert set(rows(out)) == set(rows(out, "sources.csv")) == {"a", "b"} and (out / "cohort.html").exists()
    for place in (tmp_path / "empty", tmp_path / "nothing"):
        with pytest.raises(ConfigError, match="no results here"):
            collect_results(place)
    shutil.rmtree(out / "sources")  # as when results are passed on
    collect_results(out)
    assert rows(out, "sources.csv")["a"]["path"] == "" and rows(out)["a"]["scan_digest"]
