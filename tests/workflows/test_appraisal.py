"""What reviewers ask for, from scores made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, recall_score

from m2unet.evaluation.decision import net_benefit
from m2unet.inference.confidence import OperatingPoint
from m2unet.workflows.appraisal import appraisal_table, appraise
from m2unet.workflows.evaluate import draw_confidence
from m2unet.workflows.leakage import Leakage
from m2unet.workflows.scoring import ScanScore

POINT = OperatingPoint(0.4, "youden", 1.0, 0.9, 20, None)
CLEAN = Leakage(True)


def made(count: int = 80) -> list[ScanScore]:
    """Scores whose errors lie near the threshold, where the model abstains."""
    rng = np.random.default_rng(0)
    scores = []
    for i in range(count):
        severe = int(rng.integers(2))
        probability = float(np.clip(0.4 + (severe - 0.5) * 0.5 + rng.normal(0, 0.2), 0.01, 0.99))
        near = abs(probability - 0.4) < 0.1
        scores.append(
            ScanScore(
                f"s{i}",
                f"p{i // 2}",
                site=("north", "south")[i % 3 == 0],
                severity=severe,
                probability=probability,
                raw=probability**2,
                threshold=0.4,
                answer="x",
                abstained=near,
                reasons=("the interval 0.3 to 0.5 straddles the threshold 0.40",) if near else (),
                slice_mm=1.0 if i % 2 else 5.0,
                age=30.0 + i,
            )
        )
    return scores


def test_figures_at_the_stored_operating_point() -> None:
    scores = made()
    found = appraise(scores, POINT, CLEAN)
    truth = np.array([s.severity for s in scores])
    probability = np.array([s.probability for s in scores])
    assert found.at_point["recall"].estimate == pytest.approx(recall_score(truth, probability >= 0.4))
    assert found.at_point["specificity"].estimate == pytest.approx(recall_score(1 - truth, probability < 0.4))
    assert found.at_point["recall"].low is not None
    assert found.calibrated is not None and found.raw is not None and found.benefit is not None
    assert found.calibrated.brier == pytest.approx(brier_score_loss(truth, probability))
    assert found.raw.brier == pytest.approx(brier_score_loss(truth, probability**2))
    assert found.benefit.model == net_benefit(truth, probability, 0.4).model
    flat = found.flat()
    assert flat["net_benefit"] == found.benefit.model and flat["calibration_slope"] == found.calibrated.slope
    assert flat["abstained"] == pytest.approx(np.mean([s.abstained for s in scores]))
    json.dumps(found.to_dict(), allow_nan=False)


def test_errors_among_the_abstained_are_counted() -> None:
    found = appraise(made(), POINT, CLEAN)
    kept = found.abstention
    assert kept is not None and kept.kept + kept.abstained == 80
    assert kept.accuracy_kept is not None and kept.accuracy_abstained is not None
    assert kept.accuracy_kept > kept.accuracy_abstained and kept.p_value is not None and kept.p_value < 0.05
    assert found.abstained_for == {"interval over the threshold": kept.abstained}
    assert appraise([replace(s, answer=None) for s in made()], POINT, CLEAN).abstention is None


def test_subgroups_and_those_that_cannot_be_had() -> None:
    found = appraise(made(), POINT, CLEAN)
    assert found.subgroups is not None and found.subgroup_reasons is not None
    assert set(found.subgroups) == {"site", "slice thickness", "age"}
    assert found.subgroup_reasons == {
        "scanner": "only DICOM headers name the scanner",
        "sex": "the manifest gives no sex",
    }
    assert [g.name for g in found.subgroups["site"]] == ["north", "south"]
    assert {g.name for g in found.subgroups["slice thickness"]} == {"up to 1.5 mm", "over 3 to 5 mm"}


def test_scans_with_thresholds_of_their_own() -> None:
    """Pooled folds: the decision of each scan is its own fold's."""
    scores = [replace(s, threshold=2.0 if i < 40 else 0.0) for i, s in enumerate(made())]
    found = appraise(scores, None, CLEAN)
    truth = np.array([s.severity for s in scores])
    assert found.at_point["recall"].estimate == pytest.approx(truth[40:].sum() / truth.sum())
    assert found.benefit is None and found.curve and "a threshold of its own" in appraisal_table(found)


def test_the_table_says_what_was_found(tmp_path: Path) -> None:
    text = appraisal_table(appraise(made(), POINT, CLEAN))
    assert "No patient and no image on both sides." in text
    assert "Severe from 0.400 on (chosen by youden on 20 validation scans)." in text
    for words in (
        "| calibration slope, calibrated |",
        "| net benefit at 0.400 |",
        "| left to a human |",
        "### By site",
    ):
        assert words in text
    leaking = appraisal_table(appraise(made(), POINT, Leakage(True, ("s1",))))
    assert "**1 scan(s) of patients on both sides. The figures flatter the model.**" in leaking
    draw_confidence(tmp_path / "confidence.png", appraise(made(), POINT, CLEAN))
    assert (tmp_path / "confidence.png").read_bytes()[:4] == b"\x89PNG"


def test_without_labels_there_is_a_reason(tmp_path: Path) -> None:
    found = appraise([ScanScore("a", "a", probability=0.5)], POINT, Leakage(False, reason="no file"))
    assert found.scans == 0 and found.flat()["brier"] is None
    assert "no scan has both" in appraisal_table(found) and "Not checked: no file." in appraisal_table(found)
    draw_confidence(tmp_path / "confidence.png", found)
    assert not (tmp_path / "confidence.png").exists()


def test_one_class_has_no_slope_and_a_threshold_beyond_one_no_odds() -> None:
    scores = [replace(s, severity=0) for s in made(12)]
    found = appraise(scores, replace(POINT, threshold=1.0000000000000002), CLEAN)
    assert found.benefit is None and found.calibrated is not None and found.calibrated.slope is None
    assert found.at_point["recall"].estimate is None
    json.dumps(found.to_dict(), allow_nan=False)
