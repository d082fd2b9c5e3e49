"""Inputs that a fuzzer finds by watching which lines they reach."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk

from tests.abuse.test_fuzz import ROOT, write_chest
from tests.ct.samples import chest as dicom_chest
from tests.ct.samples import write_series
from tests.guard.no_network import with_guard

RUNS = os.environ.get("M2UNET_FUZZ_RUNS", "2000")


def good_files(folder: Path, kind: str) -> None:
    """Something for the fuzzer to begin with."""
    folder.mkdir()
    if kind == "scan.dcm":
        write_series(folder, dicom_chest((1, 8, 8)))
    elif kind.startswith("scan."):
        path = write_chest(folder / "n" / f"good.{kind[5:]}")
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image[:16, :16, :4], str(folder / path.name))
        path.unlink()
    elif kind == "manifest.csv":
        (folder / "good.csv").write_text("scan_id,patient_id,image,severity,age,date\na,p,a.nii,1,50,2020-01-31\n")
    else:
        (folder / "good.yaml").write_text("preset: demo\nbag:\n  size: 8\ntrain: {epochs: 3, lr: 0.01}\n")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scan.nii", "scan.mha", "scan.nrrd", "scan.dcm", "manifest.csv", "config.yaml"])
def test_no_input_gives_a_traceback(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("atheris")
    good_files(tmp_path / "corpus", kind)
    done = subprocess.run(
        [sys.executable, "-m", "tests.abuse.guided", kind, str(tmp_path / "corpus"), RUNS, "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=560,
        env={**os.environ, "PYTHONPATH": with_guard(str(ROOT / "src"), str(ROOT)), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"number_of_executed_units: {RUNS}" in done.stderr
