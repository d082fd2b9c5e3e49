"""The forest kept as plain numbers against scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from m2unet.errors import ModelError, RunError
from m2unet.handcrafted.forest import Forest, fit_forest


@pytest.fixture(scope="module")
def data() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(120, 6))
    severity = (values[:, 0] + values[:, 1] ** 2 + rng.normal(size=120) > 1.3).astype(int)
    return values, severity


@pytest.fixture(scope="module")
def forest(data: tuple[NDArray[np.float64], NDArray[np.int64]]) -> Forest:
    values, severity = data
    return fit_forest(values[:80], severity[:80].tolist(), list("abcdef"), trees=25, seed=3)


def test_same_answer_as_scikit_learn(data: tuple[NDArray[np.float64], NDArray[np.int64]], forest: Forest) -> None:
    values, severity = data
    theirs = RandomForestClassifier(25, class_weight="balanced_subsample", random_state=3)
    theirs.fit(values[:80], severity[:80])
    np.testing.assert_allclose(forest.probability(values), theirs.predict_proba(values)[:, 1], atol=1e-12)
    np.testing.assert_allclose(forest.importances, theirs.feature_importances_)


def test_parts_are_means_over_their_trees(data: tuple[NDArray[np.float64], NDArray[np.int64]], forest: Forest) -> None:
    values, severity = data
    theirs = RandomForestClassifier(25, class_weight="balanced_subsample", random_state=3)
    theirs.fit(values[:80], severity[:80])
    each = np.array([tree.predict_proba(values.astype(np.float32))[:, 1] for tree in theirs.estimators_])
    parts = forest.parts(values)
    assert parts.shape == (10, len(values))
    np.testing.assert_allclose(parts[0], each[:3].mean(axis=0), atol=1e-12)  # 25 trees: five parts of 3, five of 2
    np.testing.assert_allclose(parts[9], each[23:].mean(axis=0), atol=1e-12)


def test_json_and_back_is_exact(data: tuple[NDArray[np.float64], NDArray[np.int64]], forest: Forest) -> None:
    again = Forest.from_dict(json.loads(json.dumps(forest.to_dict())))
    np.testing.assert_array_equal(again.probability(data[0]), forest.probability(data[0]))


def test_same_seed_same_forest(data: tuple[NDArray[np.float64], NDArray[np.int64]], forest: Forest) -> None:
    values, severity = data
    again, other = (fit_forest(values[:80], severity[:80].tolist(), list("abcdef"), trees=25, seed=s) for s in (3, 4))
    assert again.to_dict() == forest.to_dict() != other.to_dict()


def test_missing_values_count_as_the_training_median(
    data: tuple[NDArray[np.float64], NDArray[np.int64]], forest: Forest
) -> None:
    holed = data[0][:5].copy()
    holed[:, 2] = np.nan
    filled = holed.copy()
    filled[:, 2] = np.median(data[0][:80, 2])
    np.testing.assert_array_equal(forest.probability(holed), forest.probability(filled))


def test_one_class_is_refused() -> None:
    with pytest.raises(RunError, match="both classes"):
        fit_forest(np.zeros((3, 1)), [1, 1, 1], ["a"], trees=1, seed=0)


@pytest.mark.parametrize("fault", ["cycle", "feature", "length", "absent"])
def test_a_damaged_forest_is_refused(forest: Forest, fault: str) -> None:
    values = json.loads(json.dumps(forest.to_dict()))
    tree = values["trees"][0]
    if fault == "cycle":
        tree["left"][0] = 0
    elif fault == "feature":
        tree["feature"][0] = 6
    elif fault == "length":
        tree["severe"].pop()
    else:
        del values["medians"]
    with pytest.raises(ModelError, match="damaged"):
        Forest.from_dict(values)
