"""Calibrated, decided, or left to a human; and stored with the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from m2unet.ct.findings import KINDS, finding
from m2unet.errors import ModelError
from m2unet.inference.confidence import (
    LIMITING_FINDINGS,
    UNCERTAIN,
    Calibrator,
    Confidence,
    OperatingPoint,
    mean_interval,
    read_confidence,
)
from m2unet.inference.outlier import fit_reference
from m2unet.inference.severity import SeverityEstimate

LOGISTIC = Calibrator("logistic", 0.5, -1.0, scans=40, patients=25, reason=None)
POINT = OperatingPoint(0.4, "youden", 0.9, 0.8, 40, None)


def estimate(*bags: float, signature: tuple[float, ...] = ()) -> SeverityEstimate:
    return SeverityEstimate(float(np.mean(bags)), float(np.std(bags)), bags, 0, signature=signature)


def test_maps_by_hand() -> None:
    assert LOGISTIC(0.8) == pytest.approx(expit(0.5 * logit(0.8) - 1))
    assert Calibrator("temperature", 0.5)(0.8) == pytest.approx(expit(0.5 * logit(0.8)))
    assert Calibrator("isotonic", x=(0.2, 0.6), y=(0.1, 0.5))(0.4) == pytest.approx(0.3)
    assert Calibrator("isotonic", x=(0.2, 0.6), y=(0.1, 0.5))(0.9) == 0.5
    assert Calibrator()(0.123) == 0.123 and "not calibrated" in Calibrator().said
    assert LOGISTIC.said == "Calibrated (logistic) on 40 validation scans of 25 patients."


def test_the_interval_is_students_of_the_mean_probability() -> None:
    bags = np.array((0.6, 0.7, 0.65, 0.8, 0.72))
    mean = bags.mean()
    low, high = stats.t.interval(0.95, 4, logit(mean), stats.sem(bags) / (mean * (1 - mean)))
    assert mean_interval(tuple(bags)) == pytest.approx((expit(low), expit(high)))
    assert mean_interval((0.5,)) is None
    assert mean_interval((0.0, 1.0)) is not None  # finite at the ends


def test_the_interval_holds_the_probability_it_is_of() -> None:
    """Bags that disagree widely: the mean of their log-odds lies far from that of their probabilities."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        bags = tuple(expit(rng.normal(rng.normal(0, 3), rng.uniform(0, 4), rng.integers(2, 9))).tolist())
        point = OperatingPoint(float(rng.uniform(0.1, 0.9)), low=0.3, high=0.35)
        found = Confidence(LOGISTIC, point).judge(estimate(*bags))
        assert found.low is not None and found.high is not None
        assert found.low <= found.probability <= found.high
        if not found.abstain:
            assert found.low >= point.threshold if found.severe else found.high < point.threshold


def test_no_threshold_no_answer() -> None:
    point = OperatingPoint(reason="the scores of 8 validation scans do not separate the classes", informative=False)
    found = Confidence(operating_point=point).judge(estimate(0.9, 0.91))
    assert found.said == UNCERTAIN and found.threshold == 0.5 and "8 validation scans" in found.reasons[0]


def test_an_interval_over_the_threshold_is_uncertain() -> None:
    confidence = Confidence(Calibrator(reason=None), POINT)
    clear = confidence.judge(estimate(0.8, 0.82, 0.81))
    assert clear.said == "severe" and not clear.abstain and clear.reasons == ()
    assert confidence.judge(estimate(0.1, 0.12, 0.11)).said == "non-severe"
    torn = confidence.judge(estimate(0.2, 0.6, 0.5))
    assert torn.said == UNCERTAIN and torn.severe and "straddles the threshold 0.40" in torn.reasons[0]
    single = confidence.judge(estimate(0.41))
    assert single.low is None and not single.abstain


def test_a_threshold_that_few_scans_leave_open_is_straddled_sooner() -> None:
    bags = (0.5, 0.52, 0.51)
    assert not Confidence(Calibrator(reason=None), POINT).judge(estimate(*bags)).abstain
    wide = Confidence(Calibrator(reason=None), replace(POINT, low=0.3, high=0.6))
    found = wide.judge(estimate(*bags))
    assert found.abstain and found.severe and "itself known only to lie from 0.30 to 0.60" in found.reasons[0]
    assert wide.judge(estimate(0.45)).abstain and not wide.judge(estimate(0.29)).abstain
    assert not wide.judge(estimate(0.8, 0.82, 0.81)).abstain and not wide.judge(estimate(0.1, 0.12, 0.11)).abstain


def test_the_threshold_is_on_the_calibrated_scale() -> None:
    found = Confidence(LOGISTIC, POINT).judge(estimate(0.6, 0.61, 0.59))
    assert found.probability == pytest.approx(LOGISTIC(0.6)) and found.probability < 0.4
    assert found.said == "non-severe" and found.bags == pytest.approx([LOGISTIC(b) for b in (0.6, 0.61, 0.59)])
    assert found.low is not None and found.high is not None and found.low < found.probability < found.high


def test_a_failed_quality_check_is_uncertain() -> None:
    confidence, sure = Confidence(operating_point=POINT), estimate(0.9, 0.91)
    found = confidence.judge(sure, [finding("lungs-cut-off", "x"), finding("thick-slices", "y")])
    assert found.abstain and found.reasons == ("the quality check warns of lungs-cut-off",)
    assert not confidence.judge(sure, [finding("thick-slices", "a note")]).abstain
    assert KINDS.keys() >= LIMITING_FINDINGS
    assert all("warning" in KINDS[code].levels for code in LIMITING_FINDINGS)


@pytest.fixture(scope="module")
def cloud() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 6)) * [1, 5, 0.2, 1, 1, 1]


def test_a_scan_unlike_all_others_is_uncertain(cloud: np.ndarray) -> None:
    reference = fit_reference(cloud, [f"p{i}" for i in range(60)], cloud[:5] + 0.1)
    confidence = Confidence(operating_point=POINT, reference=reference)
    usual = confidence.judge(estimate(0.9, 0.91, signature=tuple(cloud[3] + 0.05)))
    assert not usual.abstain and usual.distance is not None and usual.limit is not None
    odd = confidence.judge(estimate(0.9, 0.91, signature=(8.0, 0, 3.0, 8.0, -8.0, 8.0)))
    assert odd.said == UNCERTAIN and "unlike the training scans" in odd.reasons[0]
    assert reference is not None and reference.share_farther(odd.distance or 0) == 0.0


def test_what_is_stored_is_read_back(cloud: np.ndarray, tmp_path: Path) -> None:
    reference = fit_reference(cloud, [f"p{i}" for i in range(60)], cloud[:5])
    isotonic = Calibrator("isotonic", x=(0.1, 0.9), y=(0.0, 1.0), scans=5, patients=4, reason=None)
    kept = Confidence(isotonic, POINT, reference, None, {"brier": 0.1})
    kept.save_reference(tmp_path)
    card = json.loads(json.dumps({"confidence": kept.to_card()}, allow_nan=False))
    back = read_confidence(tmp_path, card)
    assert back.calibrator == isotonic and back.operating_point == POINT and back.validation == {"brier": 0.1}
    sure = estimate(0.3, 0.35, signature=tuple(cloud[0]))
    assert replace(back.judge(sure), distance=None) == replace(kept.judge(sure), distance=None)
    assert back.judge(sure).distance == pytest.approx(kept.judge(sure).distance)
    (tmp_path / "reference.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"reference\.safetensors"):
        read_confidence(tmp_path, card)
    with pytest.raises(ModelError, match="confidence entry"):
        read_confidence(tmp_path, {"confidence": {"calibration": {}}})
    Confidence().save_reference(tmp_path)
    assert not (tmp_path / "reference.safetensors").exists()


def test_a_model_that_says_nothing_has_the_usual_threshold_and_a_reason(tmp_path: Path) -> None:
    found = read_confidence(tmp_path, {})
    assert found.operating_point.threshold == 0.5 and found.operating_point.reason and found.reference is None
    assert found.calibrator.kind == "none" and found.calibrator.reason and found.reference_reason
    assert read_confidence(tmp_path, {"confidence": found.to_card()}) == found


def test_a_stored_threshold_or_limit_that_decides_nothing_is_not_used(cloud: np.ndarray, tmp_path: Path) -> None:
    """Earlier versions stored a threshold of 0 for scores without information, and an infinite limit."""
    reference = fit_reference(cloud, [f"p{i}" for i in range(60)], cloud[:5])
    assert reference is not None
    kept = Confidence(Calibrator(reason=None), replace(POINT, threshold=0.0), reference, None)
    kept.save_reference(tmp_path)
    entry = kept.to_card()
    found = read_confidence(tmp_path, {"confidence": entry})
    assert found.operating_point.threshold == 0.5 and not found.operating_point.informative
    judged = found.judge(estimate(0.9, 0.91))
    assert judged.said == UNCERTAIN and "calls every scan alike" in judged.reasons[0]
    entry["reference"]["limit"] = float("inf")
    endless = read_confidence(tmp_path, {"confidence": entry})
    assert endless.reference is None and "infinite" in str(endless.reference_reason)


def test_bags_at_the_ends_are_held_too() -> None:
    for bags in ((0.0, 0.0), (1.0, 1.0, 1.0)):
        found = Confidence(operating_point=POINT).judge(estimate(*bags))
        assert found.low is not None and found.high is not None
        assert found.low <= found.probability <= found.high
