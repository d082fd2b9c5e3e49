"""Random forest on quantitative features (Tang et al. 2020), kept as plain numbers: JSON, never pickle.

scikit-learn grows the trees; what is kept of each is the table of its nodes, and the answer is computed from those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.errors import ModelError, RunError

LEAF = -1

PARTS = 10
"""Parts of a forest whose answers are compared."""


@dataclass(frozen=True)
class Tree:
    """Nodes of one tree, the root first.

    Attributes:
        feature: ``[m]`` number of the feature a node asks for, -1 in a leaf.
        threshold: ``[m]`` values up to it go left.
        left, right: ``[m]`` numbers of the children, -1 in a leaf.
        severe: ``[m]`` share of severe among the node's (weighted) training scans.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    severe: NDArray[np.float64]

    def probability(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Share of severe in the leaf each row of ``[n, p]`` ends in."""
        node = np.zeros(len(values), dtype=np.int64)
        while True:
            inner = self.feature[node] != LEAF
            if not inner.any():
                return self.severe[node]
            rows, at = np.flatnonzero(inner), node[inner]
            goes_left = values[rows, self.feature[at]] <= self.threshold[at]
            node[rows] = np.where(goes_left, self.left[at], self.right[at])

    def to_dict(self) -> dict[str, list[float]]:
        """JSON-ready columns; floats in full precision."""
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Forest:
    """A trained forest.

    Attributes:
        features: names of its inputs, in order.
        medians: ``[p]`` of the training scans; they replace values that cannot be had.
        trees: at least one.
        importances: ``[p]`` mean decrease of impurity, adding up to one.
    """

    features: tuple[str, ...]
    medians: NDArray[np.float64]
    trees: tuple[Tree, ...]
    importances: NDArray[np.float64]

    def probability(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of severe: the mean over the trees.

        Args:
            values: ``[n, p]``, NaN where a value cannot be had.
        """
        return np.mean(self._each(values), axis=0)

    def parts(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability ``[k, n]`` of severe that each of k parts of the forest gives, k at most :data:`PARTS`.

        Trees are grown independently of each other, so the parts tell how much the chance in growing them matters.
        """
        each = self._each(values)
        return np.array([part.mean(axis=0) for part in np.array_split(each, min(PARTS, len(each)))])

    def _each(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        filled = _filled(values, self.medians).astype(np.float32)  # scikit-learn grows and asks in float32
        return np.array([tree.probability(filled) for tree in self.trees])

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {
            "features": list(self.features),
            "medians": self.medians.tolist(),
            "importances": self.importances.tolist(),
            "trees": [tree.to_dict() for tree in self.trees],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Forest:
        """Read what :meth:`to_dict` gave.

        Raises:
            ModelError: if it is something else.
        """
        try:
            trees = tuple(_tree(tree, len(values["features"])) for tree in values["trees"])
            medians = np.asarray(values["medians"], dtype=np.float64)
            importances = np.asarray(values["importances"], dtype=np.float64)
            if not trees or not medians.shape == importances.shape == (len(values["features"]),):
                raise ValueError("lengths differ")
            return cls(tuple(map(str, values["features"])), medians, trees, importances)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError("The forest is damaged", found=error, mend="train the model again") from None


def _tree(values: Mapping[str, Sequence[float]], inputs: int) -> Tree:
    whole = {name: np.asarray(values[name], dtype=np.int64) for name in ("feature", "left", "right")}
    real = {name: np.asarray(values[name], dtype=np.float64) for name in ("threshold", "severe")}
    sizes = {column.shape for column in (*whole.values(), *real.values())}
    count = len(whole["feature"])
    inner = np.flatnonzero(whole["feature"] != LEAF)
    children = np.concatenate([whole["left"][inner], whole["right"][inner]])
    # children lie behind their parent, so that every walk ends
    ordered = bool((children > np.tile(inner, 2)).all() and (children < count).all())
    known = bool((whole["feature"] >= LEAF).all() and (whole["feature"] < inputs).all())
    if sizes != {(count,)} or not count or not ordered or not known:
        raise ValueError("a tree's nodes do not fit together")
    return Tree(whole["feature"], real["threshold"], whole["left"], whole["right"], real["severe"])


def fit_forest(
    values: NDArray[np.float64], severity: Sequence[int], features: Sequence[str], *, trees: int, seed: int
) -> Forest:
    """Grow a forest; both classes weigh the same in every tree.

    Args:
        values: ``[n, p]``, NaN where a value cannot be had.
        severity: ``[n]``, 1 severe, 0 non-severe.
        features: ``[p]`` names.
        trees: how many.
        seed: same data and seed, same forest.

    Raises:
        RunError: only one class.
    """
    from sklearn.ensemble import RandomForestClassifier

    if set(severity) != {0, 1}:
        raise RunError("A forest needs scans of both classes", found=f"severities {sorted(set(severity))}")
    known = np.isfinite(values)
    medians = np.array([np.median(c[k]) if k.any() else 0.0 for c, k in zip(values.T, known.T, strict=True)])
    grown = RandomForestClassifier(n_estimators=trees, class_weight="balanced_subsample", random_state=seed, n_jobs=1)
    grown.fit(_filled(values, medians), np.asarray(severity))
    return Forest(
        tuple(features), medians, tuple(_nodes(t.tree_) for t in grown.estimators_), grown.feature_importances_
    )


def _nodes(tree: Any) -> Tree:
    counts = tree.value[:, 0, :]
    leaf = tree.children_left == LEAF
    return Tree(
        feature=np.where(leaf, LEAF, tree.feature).astype(np.int64),
        threshold=np.where(leaf, 0.0, tree.threshold).astype(np.float64),
        left=tree.children_left.astype(np.int64),
        right=tree.children_right.astype(np.int64),
        severe=counts[:, 1] / counts.sum(axis=1),
    )


def _filled(values: NDArray[np.float64], medians: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, medians)
