from __future__ import annotations

import numpy as np
import pytest

from m2unet.phantom.disease import LOAD_RANGE, draw_disease


@pytest.fixture(scope="module")
def diseases() -> list:
    rng = np.random.default_rng(0)
    return [draw_disease(rng) for _ in range(400)]


def test_shares_are_shares(diseases: list) -> None:
    for disease in diseases:
        extents, dense = np.array(disease.peak.extents), np.array(disease.peak.dense)
        assert (extents >= 0).all()
        assert (extents < 1).all()
        assert (dense <= extents).all()


def test_lower_lobes_are_hit_hardest(diseases: list) -> None:
    rul, rml, rll, lul, lll = np.mean([disease.peak.extents for disease in diseases], axis=0)
    assert min(rll, lll) > 1.3 * max(rul, rml, lul)


def test_all_degrees_occur(diseases: list) -> None:
    scores = np.array([disease.peak.score for disease in diseases])
    assert scores.min() < 1
    assert scores.max() > 60


def test_the_course_rises_peaks_and_resolves(diseases: list) -> None:
    for disease in diseases[:20]:
        peak = disease.rise_days
        days = np.array([-1, 0, 0.3 * peak, peak, peak + disease.plateau_days])
        now = [disease.activity(day) for day in days]
        assert now[:2] == [0, 0]
        assert 0 < now[2] < 1
        assert now[3:] == pytest.approx([1, 1])
        assert disease.activity(days[-1] + disease.half_life_days) == pytest.approx(0.5)


@pytest.mark.parametrize("least", [0.2, 0.5, 0.9])
def test_the_window_holds_the_days_above_an_activity(diseases: list, least: float) -> None:
    for disease in diseases[:20]:
        first, last = disease.window(least)
        assert disease.activity(first) == pytest.approx(least, abs=1e-6)
        assert disease.activity(last) == pytest.approx(least, abs=1e-6)
        assert disease.activity(0.5 * (first + last)) > least


def test_the_state_of_a_day_never_exceeds_the_peak(diseases: list) -> None:
    for disease in diseases[:20]:
        for day in (3.0, 8.0, 30.0):
            state = disease.at(day)
            assert (np.array(state.extents) <= np.array(disease.peak.extents) + 1e-12).all()
            assert state.score <= disease.peak.score + 1e-9


def test_the_load_range_is_kept() -> None:
    rng = np.random.default_rng(1)
    light = [draw_disease(rng, (LOAD_RANGE[0], 0.02)).peak.score for _ in range(50)]
    assert max(light) < 12
