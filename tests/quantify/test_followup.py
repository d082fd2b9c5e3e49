"""Change over time against hand-worked figures; the verdict by its rule."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest

from m2unet.errors import M2UNetError
from m2unet.quantify.followup import Z, compare, follow
from m2unet.quantify.inflation import aerated_hu, at_reference_breath, density_ratio
from m2unet.quantify.lobes import GROUPS
from m2unet.quantify.timeline import ErrorModel, PartFigures, TimePoint

EXACT = ErrorModel(floor=0.5, per_mm=0.0, spread=0.0, least_points=2.0)


def point(
    percent: float | None, *, day: int = 1, hu: float | None = -850.0, mm: float = 1.0, ml: float = 4000
) -> TimePoint:
    part = (
        PartFigures(reason="no lobe of it is in the mask")
        if percent is None
        else PartFigures(ml, ml * percent / 100, percent, 0.0, -800.0)
    )
    return TimePoint(
        name=f"s{day}",
        date=datetime.date(2020, 3, day),
        slice_mm=mm,
        thickness_mm=mm,
        aerated_hu=hu,
        parts=dict.fromkeys(GROUPS, part),
        scores={"ct_severity_score": 10 if percent is not None else None, "lobar_ct_score": 5},
    )


def test_breath_alone_is_no_change() -> None:
    """1 litre of rigid opacity in 4: breathed out, the other 3 litres shrink to 2 and grow denser by half."""
    deep = point(25.0, hu=-850.0)
    shallow = point(100 * 1 / 3, day=2, hu=-775.0, ml=3000)
    assert density_ratio(-775.0, -850.0) == pytest.approx(1.5)
    assert at_reference_breath(1000.0, 3000.0, 1.5) == pytest.approx(25.0)
    found = compare(deep, shallow, EXACT)
    lungs = found.parts["lungs"]
    assert lungs.at_same_breath == pytest.approx(25.0)
    gap = (100 / 3 - 25) / 2
    assert lungs.opacity_percent.change == pytest.approx(gap)
    assert lungs.opacity_percent.sigma == pytest.approx(math.hypot(0.5, 0.5, gap))
    assert found.verdict == "stable"
    uncorrected = compare(deep, point(100 / 3, day=2, hu=None), EXACT)
    assert uncorrected.verdict == "progress", "without the correction breath is taken for disease"
    assert any("breath" in note for note in uncorrected.notes)


@pytest.mark.parametrize(
    "before, after, verdict",
    [(10.0, 20.0, "progress"), (20.0, 10.0, "regress"), (10.0, 11.0, "stable"), (10.0, 11.9, "stable")],
)
def test_the_verdict_follows_the_rule(before: float, after: float, verdict: str) -> None:
    found = compare(point(before), point(after, day=9), EXACT)
    change = found.parts["lungs"].opacity_percent
    assert change.change == pytest.approx(after - before)
    assert change.sigma == pytest.approx(0.5 * math.sqrt(2))
    assert change.index == pytest.approx((after - before) / (0.5 * math.sqrt(2)))
    assert change.low == pytest.approx(after - before - Z * 0.5 * math.sqrt(2))
    assert (found.verdict, found.days) == (verdict, 8)
    if after == 11.9:
        assert change.index is not None and change.index > Z and "less than 2 points" in found.reason


def test_thick_slices_and_much_disease_are_measured_less_exactly() -> None:
    model = ErrorModel(floor=0.3, per_mm=0.2, spread=0.1, lobe_factor=2.0)
    assert model.sigma(0.0, 5.0) == pytest.approx(math.hypot(0.3, 1.0))
    assert model.sigma(50.0, 0.0) == pytest.approx(math.hypot(0.3, 2.5))
    assert model.sigma(50.0, 0.0, lobe=True) == pytest.approx(2 * math.hypot(0.3, 2.5))
    thin, thick = (compare(point(10, mm=mm), point(14, day=2, mm=mm), model).verdict for mm in (0.5, 10.0))
    assert (thin, thick) == ("progress", "stable")


def test_what_cannot_be_had_has_a_reason_and_no_verdict() -> None:
    found = compare(point(10.0), point(None, day=2), EXACT)
    assert found.verdict is None and "s2" in found.reason
    lungs = found.parts["lungs"]
    assert lungs.volume_ml.change is None and lungs.volume_ml.reason
    assert lungs.opacity_percent.change is None and lungs.opacity_percent.before == 10.0
    assert found.scores["ct_severity_score"].change is None and found.scores["ct_severity_score"].reason
    assert found.severity.change is None and found.severity.reason


def test_scans_are_compared_in_order_of_time() -> None:
    found = follow([point(5, day=20), point(30, day=10), point(8, day=1)], EXACT)
    assert [p.name for p in found.points] == ["s1", "s10", "s20"]
    assert [step.verdict for step in found.steps] == ["progress", "regress"]
    assert (found.overall.first, found.overall.second, found.overall.verdict) == ("s1", "s20", "regress")
    with pytest.raises(M2UNetError, match="two scans"):
        follow([point(5)])


def test_errors_of_other_figures() -> None:
    model = ErrorModel(floor=1.0, per_mm=0, spread=0, volume_share=0.03, ct_severity_score=2.0)
    found = compare(point(10.0), point(10.0, day=2, ml=3000), model)
    lungs = found.parts["lungs"]
    assert lungs.volume_ml.change == -1000
    assert lungs.volume_ml.sigma == pytest.approx(0.03 * 5000)
    assert lungs.opacity_ml.sigma == pytest.approx(0.01 * 5000)
    assert found.scores["ct_severity_score"].sigma == pytest.approx(2 * math.sqrt(2))


def test_aerated_lung_is_the_peak_of_what_is_not_opaque() -> None:
    rng = np.random.default_rng(0)
    mask = np.ones((10, 40, 40), dtype=np.uint8)
    opacity = np.zeros_like(mask)
    opacity[:, :25] = 1
    hu = np.where(opacity > 0, -500, rng.normal(-862, 25, mask.shape))
    hu[:, 30:33] = -100  # vessels
    assert aerated_hu(hu.astype(np.int16), mask, opacity) == pytest.approx(-862, abs=4)
    assert aerated_hu(hu.astype(np.int16), mask, np.ones_like(mask)) is None


def test_a_followup_is_json() -> None:
    import json

    found = json.loads(json.dumps(follow([point(5), point(30, day=10)], EXACT).to_dict(), allow_nan=False))
    assert found["points"][0]["date"] == "2020-03-01"
    assert found["overall"]["verdict"] == "progress"
