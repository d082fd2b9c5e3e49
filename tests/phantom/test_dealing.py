from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from m2unet.phantom.dealing import TOLERANCE, auc, crossvalidated_auc, deal_counts, deal_labels, deal_sites


def test_counts_add_up_and_keep_their_bounds() -> None:
    counts = deal_counts(40, 110, 9, np.random.default_rng(0))
    assert counts.sum() == 110
    assert counts.min() >= 1
    assert counts.max() <= 9
    assert len(set(counts.tolist())) > 2
    assert deal_counts(3, 27, 9, np.random.default_rng(0)).tolist() == [9, 9, 9]


def test_sites_have_their_shares() -> None:
    sites = deal_sites(1000, (0.5, 0.3, 0.2), np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(sites) / 1000, [0.5, 0.3, 0.2], atol=0.002)


def test_auc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, 80).astype(float), rng.random(80) < 0.4
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert np.isnan(auc(scores, np.ones(80, dtype=bool)))


def test_the_classifier_finds_a_leak_where_there_is_one() -> None:
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(60), 3)
    labels = (np.arange(60) % 3 == 0)[owner]
    leaking = np.c_[labels + rng.normal(0, 0.5, 180), rng.normal(size=180)]
    assert crossvalidated_auc(leaking, labels, owner, rng) > 0.85


def test_dealt_labels_cannot_be_told_from_the_features() -> None:
    rng = np.random.default_rng(1)
    owner = np.repeat(np.arange(70), 3)
    features = rng.normal(size=(70, 6))[owner]
    labels = deal_labels(16, owner, features, rng)
    assert labels.sum() == 16
    again = [crossvalidated_auc(features, labels[owner], owner, rng) for _ in range(40)]
    assert np.mean(again) == pytest.approx(0.5, abs=TOLERANCE + 0.04)


def test_tiny_cohorts_are_dealt_once() -> None:
    labels = deal_labels(2, np.arange(8), np.zeros((8, 2)), np.random.default_rng(0))
    assert labels.sum() == 2
