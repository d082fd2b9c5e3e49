"""What a case says of severity: explained, judged, and shown in the report and the view."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from m2unet.cohort.manifest import Manifest
from m2unet.inference.confidence import UNCERTAIN, Calibrator, Confidence, OperatingPoint
from m2unet.inference.explain import Explanation, TopPatch
from m2unet.inference.predictor import Predictor
from m2unet.report.evidence import with_heat
from m2unet.report.reliability import reliability_plot
from m2unet.report.result import ResultDocument
from m2unet.workflows.case import CaseOptions, write_case
from m2unet.workflows.predict import Case, predict_cases
from m2unet.workflows.run_folder import RunFolder
from tests.report.conftest import make_prediction
from tests.report.pages import read_page

BINS = [
    {"low": 0.0, "high": 0.5, "count": 4, "mean_probability": 0.2, "share_severe": 0.25},
    {"low": 0.5, "high": 1.0, "count": 1, "mean_probability": 0.75, "share_severe": 1.0},
]
KNOWN = Confidence(
    Calibrator("logistic", 0.5, 0.0, scans=5, patients=4, reason=None),
    OperatingPoint(0.6, "youden", 1.0, 0.75, 5, None),
    validation={"bins": BINS},
)


@pytest.fixture(scope="module")
def predicted(run: RunFolder, cohort: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A predicted phantom: its folder and its image."""
    out = tmp_path_factory.mktemp("explained")
    image = cohort.rows[0].image
    (outcome,) = predict_cases(Predictor.load(run.path), [Case("x", image)], out)
    assert outcome.error is None
    return out / "x", image


def test_the_heat_map_lies_on_the_scan(predicted: tuple[Path, Path]) -> None:
    folder, image = predicted
    document = ResultDocument.model_validate_json((folder / "result.json").read_text())
    found = document.severity.explanation
    assert document.explained and found is not None and found.heat == document.files["heat"]
    heat, scan = sitk.ReadImage(str(folder / found.heat)), sitk.ReadImage(str(image))
    assert heat.GetSize() == scan.GetSize()
    np.testing.assert_allclose(heat.GetOrigin(), scan.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(heat.GetDirection(), scan.GetDirection(), atol=1e-5)
    values = sitk.GetArrayFromImage(heat)
    # the peak of the coarser map may lie between the scan's voxels
    assert 95 <= np.abs(values).max() <= 100 and found.peak_log_odds > 0
    for patch in found.patches:
        assert 1 <= patch.slice_number <= document.scan.shape[0] and 0 < patch.share <= 1


def test_report_and_view_show_why(predicted: tuple[Path, Path]) -> None:
    folder, _ = predicted
    text = read_page((folder / "report.html").read_text(encoding="utf-8")).text
    assert "Why, and how sure" in text and "of bags of average positions" in text
    assert '"id": "heat"' in (folder / "viewer_data.js").read_text()
    page = (folder / "viewer.html").read_text()
    assert re.search(r'id="show-heat" data-layer="heat">', page), "the heat map is there, and off at first"


def test_without_explaining_there_is_no_heat(run: RunFolder, cohort: Manifest, tmp_path: Path) -> None:
    quick = CaseOptions(explain=False, montage=False, report=False)
    predictor, case = Predictor.load(run.path), [Case("x", cohort.rows[0].image)]
    (outcome,) = predict_cases(predictor, case, tmp_path, quick)
    assert outcome.result is not None and outcome.result.severity.explanation is None
    assert "heat" not in outcome.result.files and quick.satisfied_by(outcome.result)
    assert not replace(quick, explain=True).satisfied_by(outcome.result)


def test_a_judged_case_keeps_what_the_network_said(tmp_path: Path) -> None:
    plain = make_prediction()
    assert plain.severity is not None
    judged = replace(plain, judgement=KNOWN.judge(plain.severity, plain.volume.findings), confidence=KNOWN)
    document = write_case(judged, "x", tmp_path / "x", CaseOptions(montage=False))
    severity = document.severity
    assert severity.raw == 0.8 and severity.probability == pytest.approx(2 / 3)  # odds 4, their root 2
    assert severity.calibrated and severity.calibration == "Calibrated (logistic) on 5 validation scans of 4 patients."
    assert severity.interval is not None and severity.interval[0] < 0.6 <= severity.interval[1]
    assert severity.answer == UNCERTAIN and severity.abstained and "straddles the threshold 0.60" in severity.reasons[0]
    assert severity.distance is None and severity.distance_reason
    page = (tmp_path / "x" / "report.html").read_text(encoding="utf-8")
    text = read_page(page).text
    assert UNCERTAIN in text and "straddles" in text and "Severe from 0.60 on" in text
    assert page.count("<circle") == 2 and "4 scans said 0.20, 25 % severe" in page


def test_the_reliability_drawing_by_hand() -> None:
    plain = make_prediction()
    assert plain.severity is not None
    from m2unet.workflows.severity import severity_part

    judged = replace(plain, judgement=KNOWN.judge(plain.severity), confidence=KNOWN)
    plot = reliability_plot(severity_part(judged, None))
    assert plot is not None and plot.scans == 5 and plot.threshold == pytest.approx(120)
    first, second = plot.points
    assert (first.x, first.y, first.radius) == (40.0, 150.0, 9.0)  # 0.2 of 200 to the right, 0.25 of 200 up
    assert (second.x, second.y, second.radius) == (150.0, 0.0, 4.5)  # a quarter of the area
    assert plot.left < plot.at < plot.left + plot.width
    assert reliability_plot(severity_part(plain, None)) is None


def test_the_strongest_patches_are_drawn(tmp_path: Path) -> None:
    plain = make_prediction()
    heat = np.zeros(plain.volume.shape, dtype=np.int8)
    heat[10, 20:40, 30:60] = 100
    patch = TopPatch(10, (20, 40, 30, 60), (30, 45), 0.7, 0.9, 0)
    explained = replace(plain, explanation=Explanation(heat, 0.1, 0.5, -0.2, (patch,), 0.4))
    document = write_case(explained, "x", tmp_path / "x")
    assert document.files["evidence"] == "evidence.png"
    with Image.open(tmp_path / "x" / "evidence.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    orange = (pixels[..., 0] > 150) & (pixels[..., 2] < 90)
    assert orange.mean() > 0.002
    text = read_page((tmp_path / "x" / "report.html").read_text(encoding="utf-8")).text
    assert f"11 of {plain.volume.shape[0]}" in text
    shown = document.severity.explanation
    assert shown is not None and shown.patches[0].slice_number == 11


def test_faint_and_negative_heat_leaves_the_picture_alone() -> None:
    tile = np.full((8, 8, 3), 90, dtype=np.uint8)
    heat = np.full((8, 8), -100, dtype=np.int8)
    np.testing.assert_array_equal(with_heat(tile, heat), tile)
    assert with_heat(tile, np.full((8, 8), 100, dtype=np.int8))[4, 4, 0] > 180
