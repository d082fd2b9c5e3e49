"""Yang's rule as a probability."""

from __future__ import annotations

import itertools

import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from m2unet.errors import M2UNetError, RunError
from m2unet.handcrafted.features import Measured
from m2unet.handcrafted.score_rule import ScoreRule, chosen_rule, full_score


def scored(score: int, regions: int = 20) -> Measured:
    return Measured({}, score, regions, "mask")


def test_severe_above_the_published_threshold() -> None:
    rule = ScoreRule(19.5)
    probabilities = [rule.probability(scored(s)) for s in range(41)]
    assert [p >= 0.5 for p in probabilities] == [s > 19.5 for s in range(41)]
    assert all(a < b for a, b in itertools.pairwise(probabilities))
    assert probabilities[0] == 0 and probabilities[40] == 1


def test_the_threshold_itself_is_not_above_it() -> None:
    assert ScoreRule(20).probability(scored(20)) < 0.5 < ScoreRule(20).probability(scored(21))


def test_absent_regions_count_as_the_mean_of_the_others() -> None:
    assert full_score(scored(18, regions=18)) == 20
    with pytest.raises(M2UNetError, match="No region"):
        full_score(scored(0, regions=0))


def test_threshold_chosen_on_validation_has_the_best_youden_index() -> None:
    scores, severity = [2, 5, 8, 12, 9, 14, 20, 30], [0, 0, 0, 0, 1, 1, 1, 1]
    rule = chosen_rule(severity, [scored(s) for s in scores])
    false_positive, true_positive, _ = roc_curve(severity, scores)
    called = [rule.probability(scored(s)) >= 0.5 for s in scores]
    hits = sum(c for c, t in zip(called, severity, strict=True) if t) / 4
    alarms = sum(c for c, t in zip(called, severity, strict=True) if not t) / 4
    assert hits - alarms == pytest.approx(max(true_positive - false_positive))
    assert roc_auc_score(severity, [rule.probability(scored(s)) for s in scores]) == roc_auc_score(severity, scores)


def test_one_class_cannot_choose() -> None:
    with pytest.raises(RunError, match="both classes"):
        chosen_rule([1, 1], [scored(3), scored(9)])
    with pytest.raises(M2UNetError, match="inside the score"):
        ScoreRule(0)
