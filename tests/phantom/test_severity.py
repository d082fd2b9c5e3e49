from __future__ import annotations

import numpy as np
import pytest

from m2unet.phantom.severity import DOUBT, LOBE_WEIGHTS, THRESHOLD, WIDTH, grade_of, severe_probability, severity_score


def test_weights_sum_to_one() -> None:
    assert sum(LOBE_WEIGHTS) == pytest.approx(1.0)


def test_a_worked_example() -> None:
    # half the right lower lobe, a fifth of it consolidated; a tenth of the left upper lobe, all ground-glass
    score = severity_score([0, 0, 0.5, 0.1, 0], [0, 0, 0.1, 0, 0])
    assert score == pytest.approx(100 * (0.26 * 0.6 + 0.23 * 0.1))


def test_many_states_at_once() -> None:
    extents = np.linspace(0, 1, 15).reshape(3, 5)
    expected = [float(severity_score(row, row / 2)) for row in extents]
    np.testing.assert_allclose(severity_score(extents, extents / 2), expected)


def test_probability_is_logistic_near_the_threshold_and_certain_beyond_doubt() -> None:
    assert severe_probability(THRESHOLD) == pytest.approx(0.5)
    assert severe_probability(THRESHOLD + WIDTH) == pytest.approx(1 / (1 + np.exp(-1)))
    np.testing.assert_array_equal(severe_probability([THRESHOLD - DOUBT - 0.1, THRESHOLD + DOUBT + 0.1]), [0, 1])


@pytest.mark.parametrize(
    ("score", "severe", "grade"),
    [(2.0, False, "mild"), (20.0, False, "moderate"), (25.0, True, "severe"), (80.0, True, "critical")],
)
def test_grade_never_contradicts_the_label(score: float, severe: bool, grade: str) -> None:
    assert grade_of(score, severe) == grade
