from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="the dicom extra is not installed")

from pydicom import dcmread

from m2unet.ct.findings import Finding
from m2unet.ct.volume import from_source
from m2unet.export.source import SeriesOptions
from m2unet.inference.predictor import ModelIdentity, Prediction
from m2unet.inference.severity import SeverityEstimate
from m2unet.quantify.quantities import Quantities, quantify
from m2unet.workflows.dicom import REPORT_FILE, SEG_FILE, report_content, write_dicom
from tests.export.series import Case, read_case, write_series
from tests.export.test_dicom_sr import figures, groups, texts

MODEL = ModelIdentity("m2unet", "paper", "0123456789abcdef" * 4, None)
SEVERITY = SeverityEstimate(0.7, 0.1, (0.6, 0.8), 0)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Lobes side by side along x, 800 ml in all; the middle lobe is absent."""
    folder = tmp_path_factory.mktemp("series") / "ct"
    values = np.zeros((10, 40, 60), dtype=np.uint16)
    for place, code in enumerate((1, 3, 4, 5)):
        values[1:-1, 5:35, 5 + 12 * place : 15 + 12 * place] = code
    values[3:6, 10:25, 6:14] += 10
    write_series(folder, values, step=(0.0, 0.0, 6.0), spacing_mm=(3.0, 3.0))
    return read_case(folder)


@pytest.fixture(scope="module")
def prediction(case: Case) -> Prediction:
    array = np.where(case.lobes > 0, np.where(case.opacity > 0, -400, -850), 40).astype(np.int16)
    finding = Finding("gantry-tilt", "warning", "slices stacked slanting", "none")
    note = Finding("padding", "note", "some voxels", "none")
    volume = replace(case.volume, array=array, findings=(finding, note))
    return Prediction(volume, case.lobes, SEVERITY, MODEL)


@pytest.fixture(scope="module")
def quantities(prediction: Prediction) -> Quantities:
    assert prediction.lobes is not None
    return quantify(prediction.volume.array, prediction.lobes, prediction.volume.spacing_mm)


def test_writes_both_and_they_fit_together(prediction: Prediction, quantities: Quantities, tmp_path: Path) -> None:
    assert write_dicom(prediction, quantities, tmp_path / "case") == {"dicom_seg": SEG_FILE, "dicom_sr": REPORT_FILE}
    seg, report = dcmread(tmp_path / "case" / SEG_FILE), dcmread(tmp_path / "case" / REPORT_FILE)
    assert quantities.opacity["RUL"].ground_glass_ml
    labels = [segment.SegmentLabel for segment in seg.SegmentSequence]
    assert labels[:4] == ["Right upper lobe", "Right lower lobe", "Left upper lobe", "Left lower lobe"]
    assert "Ground glass" in labels
    assert seg.SegmentSequence[0].SegmentAlgorithmName == "m2unet"
    assert seg.SoftwareVersions[-1].endswith("+0123456789ab")
    found = groups(report)
    for name, region in (
        ("m2unet right upper lobe", "RUL"),
        ("m2unet left lower lobe", "LLL"),
        ("m2unet lungs", "lungs"),
    ):
        expected = (
            quantities.volumes[region].volume_ml,
            quantities.opacity[region].opacity_percent,
            quantities.opacity[region].mean_hu,
        )
        assert tuple(figures(found[name]).values()) == pytest.approx(expected)
    assert figures(found["m2unet right middle lobe"]) == {}
    assert texts(found["m2unet right middle lobe"]) == ["the lobe is absent from the mask"]
    assert figures(found["m2unet lobar ct score"]) == {}
    low, high = quantities.lobar_score.least, quantities.lobar_score.most
    assert texts(found["m2unet lobar ct score"]) == [f"no score for RML; it lies between {low} and {high}"]
    assert figures(found["m2unet severity"]) == {("P_SEVERE", "Mean"): 0.7, ("P_SEVERE", "Standard Deviation"): 0.1}
    assert texts(found["m2unet remarks"]) == ["warning: slices stacked slanting"]


def test_valid(prediction: Prediction, quantities: Quantities, tmp_path: Path) -> None:
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    for name in write_dicom(prediction, quantities, tmp_path, series=SeriesOptions(number=5)).values():
        done = subprocess.run([tool, str(tmp_path / name)], capture_output=True, text=True, check=False)
        assert "Error" not in done.stdout + done.stderr


def test_severity_alone_gives_a_report_alone(prediction: Prediction, quantities: Quantities, tmp_path: Path) -> None:
    write_dicom(prediction, quantities, tmp_path)
    alone = replace(prediction, lobes=None)
    assert write_dicom(alone, None, tmp_path) == {"dicom_sr": REPORT_FILE}
    assert not (tmp_path / SEG_FILE).exists()


def test_a_single_bag_has_no_spread(prediction: Prediction) -> None:
    content = report_content(replace(prediction, severity=SeverityEstimate(0.7, 0.0, (0.7,), 0)), None)
    assert content.severity is not None and content.severity.spread is None


def test_nothing_is_written_for_nothing(prediction: Prediction, tmp_path: Path) -> None:
    airway = np.full(prediction.volume.shape, 6, dtype=np.uint8)
    assert write_dicom(replace(prediction, lobes=airway, severity=None), None, tmp_path) == {}
    volume = from_source(prediction.volume.array, prediction.volume.spacing_mm, format="nifti")
    assert write_dicom(replace(prediction, volume=volume), None, tmp_path) == {}
    assert list(tmp_path.iterdir()) == []
