"""Lines and exit codes of ``m2unet predict``."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from m2unet.cli.common import say
from m2unet.cli.main import app
from m2unet.cli.progress import TerminalProgress
from m2unet.errors import OutputError
from tests.workflows.stub import StubPredictor, write_patient

Prepared = Callable[..., StubPredictor]


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """Makes the command load a stub that raises what it is told to."""

    def prepare(*errors: Exception | None) -> StubPredictor:
        stub = StubPredictor(*errors)
        monkeypatch.setattr("m2unet.workflows.methods.load_method", lambda *_, **__: stub)
        return stub

    return prepare


def call(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["predict", *map(str, arguments), "--no-report", "--no-montage"])
    return result.exit_code, result.output


def test_lines_come_as_cases_finish(tmp_path: Path, stubbed: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = stubbed()
    scans = [write_patient(tmp_path / letter, f"{letter * 5}^X", f"{letter}123") for letter in "ABC"]
    said: list[int] = []
    monkeypatch.setattr("m2unet.cli.predict.say", lambda text="": said.append(stub.predicted))
    assert call(*scans, "--out", tmp_path / "out")[0] == 0
    assert said[:3] == [1, 2, 3]


@pytest.mark.parametrize(
    ("errors", "code"),
    [([None, None], 0), ([RuntimeError("x"), None], 1), ([RuntimeError("x"), RuntimeError("y")], 1)],
)
def test_an_unexpected_fault_is_exit_code_1(
    tmp_path: Path, stubbed: Prepared, errors: list[Exception | None], code: int
) -> None:
    stubbed(*errors)
    scans = [write_patient(tmp_path / letter, f"{letter * 5}^X", f"{letter}123") for letter in "AB"]
    assert call(*scans, "--out", tmp_path / "out")[0] == code


def test_bad_input_alone_is_exit_code_2(tmp_path: Path, stubbed: Prepared) -> None:
    stubbed()
    assert call(tmp_path / "nothing", "--out", tmp_path / "out")[0] == 2


def test_the_line_says_that_a_name_was_replaced(tmp_path: Path, stubbed: Prepared) -> None:
    stubbed()
    scan = write_patient(tmp_path / "MUSTERFRAU_ERIKA_19640812")
    code, said = call(scan, "--out", tmp_path / "out")
    assert code == 0 and "resembles what the header says of the patient" in said
    assert "MUSTERFRAU" not in said and "ERIKA" not in said
    assert "resembles" in call(scan, "--name", "erika", "--out", tmp_path / "out")[1]
    assert "resembles" not in call(scan, "--identify", "--out", tmp_path / "identified")[1]


def test_a_case_can_be_named(tmp_path: Path, stubbed: Prepared) -> None:
    stubbed()
    scan = write_patient(tmp_path / "CT")
    code, said = call(scan, "--name", "s001", "--out", tmp_path / "out")
    assert code == 0 and said.startswith("s001: ") and (tmp_path / "out" / "s001" / "result.json").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "scan"), ("evaluate", "run", "m.csv"), ("train", "m.csv"), ("crossval", "m.csv"),
        ("followup", "m.csv"), ("quantify", "scan", "--lobes", "mask"), ("prepare", "m.csv"), ("demo",),
        ("annotate", "propose", "m.csv", "--model", "run"), ("reproduce", "--cohort", "m.csv"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_written_is_found_before_anything_is_read(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("a file")
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "file" / "out")])
    assert isinstance(result.exception, OutputError) and result.exception.exit_code == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[io.StringIO], None]]:
    yield lambda stream: monkeypatch.setattr(sys, "stdout", stream)


def test_lines_beside_a_bar_stay_on_standard_output(streams: Callable[[io.StringIO], None]) -> None:
    bar, lines = Terminal(), io.StringIO()
    streams(lines)
    with TerminalProgress(Console(file=bar, force_terminal=True, width=200)).stage("predicting") as step:
        say("CT-1: done")
        step(1, 2)
    assert lines.getvalue() == "CT-1: done\n" and "CT-1" not in bar.getvalue() and "predicting" in bar.getvalue()


def test_lines_on_the_bar_s_terminal_stand_above_it(streams: Callable[[io.StringIO], None]) -> None:
    terminal = Terminal()
    streams(terminal)
    with TerminalProgress(Console(file=terminal, force_terminal=True, width=200)).stage("predicting") as step:
        step(1, 2)
        say("CT-1: done")
    erased = re.split(r"\x1b\[2K|\n", terminal.getvalue())  # what stands in a line after it was wiped
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", part) for part in erased]
    assert "CT-1: done" in lines
