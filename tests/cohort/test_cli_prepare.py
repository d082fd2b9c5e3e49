"""``m2unet prepare``: what it says and how it exits."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from m2unet.cli.prepare import prepare
from m2unet.cohort.store import Store
from m2unet.errors import ManifestError, StoreError
from tests.cohort.conftest import chest, save

app = typer.Typer()
app.command("prepare")(prepare)


def call(cohort: Path, *arguments: str) -> Any:
    given = [str(cohort), "--out", str(cohort.parent / "store"), "--set", "prepare.min_box=48", *arguments]
    return CliRunner().invoke(app, given)


def test_prepare_says_what_it_did(cohort: Path) -> None:
    first = call(cohort)
    assert first.exit_code == 0, first.output
    assert "4 prepared, 0 already there, 0 failed" in first.stdout
    assert "0 prepared, 4 already there, 0 failed" in call(cohort).stdout
    assert "4 prepared" in call(cohort, "--redo").stdout
    assert Store(cohort.parent / "store").prepare.min_box == 48


def test_failed_scans_are_listed_and_make_exit_code_one(cohort: Path, caplog: pytest.LogCaptureFixture) -> None:
    (cohort.parent / "1.nii").write_bytes(b"not a scan")
    (cohort.parent / "2.nii").write_bytes((cohort.parent / "0.nii").read_bytes())
    cohort.write_text(cohort.read_text().replace("scan1,p1,1.nii,1_lobes.nii,1", "scan1,p1,1.nii,1_lobes.nii,0"))
    cohort.write_text(cohort.read_text().replace("scan0,p1,0.nii,0_lobes.nii,0", "scan0,p1,0.nii,0_lobes.nii,1"))
    with caplog.at_level(logging.WARNING, logger="m2unet"):
        result = call(cohort)
    assert result.exit_code == 1
    assert "3 prepared, 0 already there, 1 failed" in result.stdout
    assert "scan1: " in result.stderr
    assert "the same image: scan0, scan2" in result.stderr
    assert "rows 2, 3: one patient's scans differ in severity" in caplog.text


def test_findings_are_logged(cohort: Path, caplog: pytest.LogCaptureFixture) -> None:
    lobes = chest()[1]
    lobes[:, :6, :12] = 1  # far outside the body
    save(lobes, cohort.parent / "0_lobes.nii")
    with caplog.at_level(logging.WARNING, logger="m2unet"):
        assert call(cohort).exit_code == 0
    assert "scan0: lobes-cropped:" in caplog.text


def test_bad_use_is_exit_code_two(cohort: Path) -> None:
    assert call(cohort, "--lobe-codes", "theirs").exit_code == 2
    assert call(cohort, "--lobe-codes", "m2unet").exit_code == 0
    error = call(cohort, "--lobe-codes", "lungmask").exception
    assert isinstance(error, StoreError) and error.exit_code == 2
    cohort.write_text("scan_id\n")
    error = call(cohort).exception
    assert isinstance(error, ManifestError) and error.exit_code == 2
