"""Fixtures of the DICOM exports."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("highdicom", reason="the dicom extra is not installed")

from tests.export.series import Case, make_case

Validate = Callable[[Path], list[str]]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A small axial series."""
    return make_case(tmp_path / "ct")


@pytest.fixture
def dciodvfy() -> Validate:
    """What David Clunie's validator calls an error in a file."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")

    def errors(path: Path) -> list[str]:
        done = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert any(line.strip() in ("Segmentation", "ComprehensiveSR") for line in lines), lines
        return [line for line in lines if line.startswith(("Error", "Abort"))]

    return errors
