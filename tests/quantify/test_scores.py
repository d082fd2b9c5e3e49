"""The two scores by hand, at and around their limits."""

from __future__ import annotations

import json

import pytest

from m2unet.quantify.regions import REGIONS
from m2unet.quantify.scores import pan_part, pan_score, yang_part, yang_score

LOBES = ("RUL", "RML", "RLL", "LUL", "LLL")


@pytest.mark.parametrize(("percent", "score"), [(0, 0), (0.9, 0), (1, 1), (49.9, 1), (50, 2), (100, 2)])
def test_a_region_scores_0_1_2(percent: float, score: int) -> None:
    assert yang_part(percent) == score


@pytest.mark.parametrize(
    ("percent", "score"),
    [(0, 0), (0.5, 0), (2, 1), (4.9, 1), (5, 2), (25, 2), (26, 3), (49, 3), (50, 4), (75, 4), (75.1, 5), (100, 5)],
)
def test_a_lobe_scores_0_to_5(percent: float, score: int) -> None:
    assert pan_part(percent) == score


def test_a_true_zero_is_never_involved() -> None:
    assert yang_part(0.0, involved_from=0.0) == pan_part(0.0, involved_from=0.0) == 0
    assert yang_part(0.01, involved_from=0.0) == pan_part(0.01, involved_from=0.0) == 1


def test_sums_and_the_severe_threshold() -> None:
    names = [region.name for region in REGIONS]
    full = yang_score(dict.fromkeys(names, 100.0))
    assert (full.total, full.highest, full.severe) == (40, 40, True)
    nineteen = yang_score({name: 10.0 if n < 19 else 0.0 for n, name in enumerate(names)})
    twenty = yang_score(dict.fromkeys(names, 10.0))
    assert (nineteen.total, nineteen.severe) == (19, False)
    assert (twenty.total, twenty.severe) == (20, True)
    lobar = pan_score(dict(zip(LOBES, (0, 3, 20, 60, 90), strict=True)))
    assert (lobar.total, lobar.highest, lobar.severe) == (0 + 1 + 2 + 4 + 5, 25, None)


def test_an_absent_part_leaves_bounds_instead_of_a_sum() -> None:
    names = [region.name for region in REGIONS]
    percents: dict[str, float | None] = dict.fromkeys(names, 10.0)
    percents[names[0]] = percents[names[1]] = None
    open_case = yang_score(percents)
    assert (open_case.total, open_case.least, open_case.most, open_case.severe) == (None, 18, 22, None)
    assert open_case.parts[names[0]] is None and names[0] in str(open_case.reason)
    assert yang_score(percents, severe_above=17.5).severe is True
    assert yang_score(percents, severe_above=22).severe is False
    json.dumps(open_case.to_dict(), allow_nan=False)
    nothing = pan_score(dict.fromkeys(LOBES))
    assert (nothing.total, nothing.least, nothing.most) == (None, 0, 25)
