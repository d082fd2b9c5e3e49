from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from m2unet.cli.phantom import phantom
from m2unet.cohort.manifest import read_manifest
from m2unet.phantom import cohort, writer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list:
    """What the command hands to the writer, instead of rendering it."""
    calls: list = []

    def write(plan: cohort.CohortPlan, folder: Path, form: str, workers: int, progress: object) -> Path:
        calls.append((plan, form, workers))
        progress(1, 2)  # type: ignore[operator]
        return folder / "manifest.csv"

    monkeypatch.setattr(writer, "write_cohort", write)
    return calls


def call(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(phantom)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_options_reach_the_plan(asked: list, tmp_path: Path) -> None:
    options = "--scans 12 --patients 6 --seed 7 --severe 0.5 --lobe-masks 4 --format dicom --workers 1 --size paper"
    output = call(str(tmp_path), *options.split())
    [(plan, form, workers)] = asked
    assert (form, workers, plan.seed) == ("dicom", 1, 7)
    assert plan.config == cohort.CohortConfig("paper", 12, 6, 0.5, 4)
    assert "12 synthetic scans of 6 patients (3 severe)" in output


def test_defaults(asked: list, tmp_path: Path) -> None:
    call(str(tmp_path), "--scans", "30")
    [(plan, form, workers)] = asked
    assert (form, workers, plan.config.size, plan.config.lobe_masks) == ("nifti", 2, "small", "all")
    assert len(plan.patients) == round(30 * 242 / 666)


def test_one_scan_for_real(tmp_path: Path) -> None:
    call(str(tmp_path / "out"), "--scans", "1", "--workers", "1")
    assert len(read_manifest(tmp_path / "out" / "manifest.csv")) == 1


def test_a_course_follows_patients(asked: list, tmp_path: Path) -> None:
    output = call(str(tmp_path), "--course", "3", "--patients", "2", "--seed", "7")
    [(plan, _, _)] = asked
    assert plan.course and len(plan.scans) == 6 and len(plan.patients) == 2
    assert "m2unet followup" in output
