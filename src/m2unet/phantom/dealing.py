"""Dealing scans, sites and labels to patients so that nothing but the picture tells the label.

Labels are dealt last, to patients whose anatomy, site and protocols are already fixed. Chance alone would still let
a classifier guess labels from protocols in a cohort of some seventy patients (its cross-validated AUC scatters by 0.08
about 0.5), and forcing equal shares of every site on both labels turns the guess systematically wrong (AUC 0.35,
because what is over-represented in training is then under-represented in the test). So the deal is repeated until
such a classifier is at chance: rerandomisation, a standard design of trials (Morgan and Rubin 2012).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.02
"""How far from 0.5 the mean cross-validated AUC of protocol against label may lie in a deal."""

_FOLDS, _DEALS = 5, 300
_GLANCES, _LOOKS = 3, 20  # divisions into folds: a few tell the hopeless deals, all decide
_FEWEST = 5  # patients of each label below which nothing can be cross-validated
_PENALTY = 5.0  # about that of a logistic regression with C = 1

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def deal_counts(patients: int, scans: int, most: int, rng: np.random.Generator) -> Ints:
    """Number of scans of each patient: at least one, at most ``most``, unevenly shared."""
    counts = np.ones(patients, dtype=np.int64)
    appetite = rng.gamma(1.5, size=patients) + 1e-3
    for _ in range(scans - patients):
        odds = appetite * (counts < most)
        counts[rng.choice(patients, p=odds / odds.sum())] += 1
    return counts


def deal_sites(patients: int, weights: tuple[float, ...], rng: np.random.Generator) -> Ints:
    """A site for each patient, in proportions as near to the weights as whole patients allow."""
    steps = np.cumsum(weights) / np.sum(weights)
    places = (np.arange(patients) + rng.random()) / patients
    return rng.permutation(np.minimum(np.searchsorted(steps, places, side="right"), len(weights) - 1))


def deal_labels(severe: int, owner: Ints, features: Array, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose the severe patients at random, again and again until protocols do not give them away.

    Args:
        severe: number of severe patients.
        owner: patient index of each scan, 0 to n - 1, each occurring.
        features: ``[scans, features]`` of the protocols.
        rng: source of randomness.

    Returns:
        For each patient whether severe. Where either label has fewer than five patients, the first deal stands.
    """
    patients = int(owner.max()) + 1
    nearest, closest = np.zeros(patients, dtype=bool), np.inf
    for _ in range(_DEALS):
        labels = np.zeros(patients, dtype=bool)
        labels[rng.permutation(patients)[:severe]] = True
        if min(severe, patients - severe) < _FEWEST:
            return labels
        distance = _from_chance(features, labels[owner], owner, rng)
        if distance < closest:
            nearest, closest = labels, distance
        if closest <= TOLERANCE:
            break
    return nearest


def _from_chance(features: Array, labels: NDArray[np.bool_], owner: Ints, rng: np.random.Generator) -> float:
    """Distance of the mean AUC from 0.5 with both kinds of folds; rough where a few divisions show that it is large."""
    worst = 0.0
    for even in (True, False):
        found = [crossvalidated_auc(features, labels, owner, rng, even=even) for _ in range(_GLANCES)]
        if abs(np.mean(found) - 0.5) <= 3 * TOLERANCE:
            found += [crossvalidated_auc(features, labels, owner, rng, even=even) for _ in range(_LOOKS - _GLANCES)]
        worst = max(worst, float(abs(np.mean(found) - 0.5)))
        if worst > 3 * TOLERANCE:
            break
    return worst


def crossvalidated_auc(
    features: Array, labels: NDArray[np.bool_], owner: Ints, rng: np.random.Generator, *, even: bool = False
) -> float:
    """AUC of a ridge classifier on held-out patients, mean of five folds stratified by label.

    Args:
        features: ``[scans, features]``.
        labels: of the scans; a patient's scans share it.
        owner: patient index of each scan.
        rng: source of the division into folds.
        even: share out scans evenly, as scikit-learn's StratifiedGroupKFold does, instead of patients.
    """
    scale = features.std(axis=0)
    x = (features - features.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    fold_of = _folds(labels, owner, rng, even)
    found = []
    for fold in range(_FOLDS):
        test = fold_of[owner] == fold
        train = ~test
        centre = x[train].mean(axis=0)
        inner = x[train] - centre
        share = labels[train].mean()
        penalty = _PENALTY / max(4 * share * (1 - share), 0.1) * np.eye(x.shape[1])
        weights = np.linalg.solve(inner.T @ inner + penalty, inner.T @ (labels[train] - share))
        found.append(auc((x[test] - centre) @ weights, labels[test]))
    return float(np.nanmean(found))


def _folds(labels: NDArray[np.bool_], owner: Ints, rng: np.random.Generator, even: bool) -> Ints:
    """A fold for each patient."""
    _, first, counts = np.unique(owner, return_index=True, return_counts=True)
    of_patient = labels[first]
    fold_of = np.empty(len(of_patient), dtype=np.int64)
    for label in (False, True):
        members = rng.permutation(np.flatnonzero(of_patient == label))
        fold_of[members] = np.arange(len(members)) % _FOLDS
        if even:  # the patient with the most scans first, always to the emptiest fold
            filled = np.zeros(_FOLDS)
            for member in members[np.argsort(-counts[members], kind="stable")]:
                fold_of[member] = np.argmin(filled + 1e-3 * rng.random(_FOLDS))
                filled[fold_of[member]] += counts[member]
    return fold_of


def auc(scores: Array, labels: NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks, ties counted half; NaN with one label only."""
    from scipy.stats import rankdata

    positive = int(labels.sum())
    negative = len(labels) - positive
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(scores)[labels].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))
