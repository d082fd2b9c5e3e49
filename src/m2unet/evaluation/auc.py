"""The variance of areas under ROC curves: DeLong's, and Obuchowski's for several scans of a patient.

DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44:837-845) with midranks; Obuchowski 1997 (Biometrics 53:567-578),
which is DeLong's when every patient has one scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.errors import M2UNetError
from m2unet.evaluation.classification import group_patients


@dataclass(frozen=True)
class ClassSpread:
    """How one class's scans contribute to the variance of an area.

    Attributes:
        simple: their part with every scan a patient of its own.
        clustered: their part with patients as clusters.
        sizes: ``[patients]`` scans of each patient of the class.
    """

    simple: float
    clustered: float
    sizes: NDArray[np.int64]

    @property
    def patients(self) -> int:
        """Patients of the class."""
        return int(self.sizes.size)


def area_and_spread(
    truth: NDArray[np.bool_], score: NDArray[np.float64], index: NDArray[np.int64]
) -> tuple[float, tuple[ClassSpread, ClassSpread]]:
    """The area of one list of scores, and the parts of its variance from severe and from other scans.

    Args:
        truth: ``[n]``, whether severe; both classes occur.
        score: ``[n]``, larger means more severe.
        index: ``[n]`` patient number of each scan.
    """
    placed = _placements(truth, score[None])[0]
    area = float(placed[truth].mean())
    rest = placed - area
    parts = []
    for mask in (truth, ~truth):
        sums = np.bincount(index[mask], weights=rest[mask])
        sizes = np.bincount(index[mask])
        sizes = sizes[sizes > 0]
        parts.append(
            ClassSpread(
                simple=_between(rest[mask], int(mask.sum()), int(mask.sum())),
                clustered=_between(sums, sizes.size, int(mask.sum())),
                sizes=sizes,
            )
        )
    return area, (parts[0], parts[1])


def _between(sums: NDArray[Any], clusters: int, scans: int) -> float:
    return float(clusters / (clusters - 1) * (sums**2).sum() / scans**2) if clusters > 1 else 0.0


def auc_covariance(
    severity: ArrayLike, scores: NDArray[np.float64], patients: Sequence[str] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The areas of several score lists on the same cases, and their covariance.

    Args:
        severity: ``[n]``, 1 severe, 0 non-severe; at least two of each.
        scores: ``[k, n]``, one row a method.
        patients: ``[n]`` patient of each scan; None takes every scan as a patient of its own.

    Returns:
        ``[k]`` areas and ``[k, k]`` covariance.

    Raises:
        M2UNetError: fewer than two patients with severe or with non-severe scans.
    """
    truth = np.asarray(severity).astype(bool)
    names = [str(n) for n in range(truth.size)] if patients is None else patients
    index, _ = group_patients(names, truth.size)
    groups = [np.unique(index[mask]).size for mask in (truth, ~truth)]
    if min(groups) < 2:
        raise M2UNetError("An AUC's variance needs two patients of each class", found=f"{groups[0]} and {groups[1]}")
    severe, others = int(truth.sum()), int((~truth).sum())
    placed = _placements(truth, scores)
    areas = placed[:, truth].mean(axis=1)
    rest = placed - areas[:, None]
    total = index.max() + 1
    by_patient = [
        np.stack([np.bincount(index[mask], weights=row[mask], minlength=total) for row in rest])
        for mask in (truth, ~truth)
    ]
    within = [
        size / (size - 1) * (sums @ sums.T) / count**2
        for sums, size, count in zip(by_patient, groups, (severe, others), strict=True)
    ]
    across = total / (total - 1) * (by_patient[0] @ by_patient[1].T) / (severe * others)
    return areas, within[0] + within[1] + across + across.T


def _placements(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[k, n]`` share of the other class that lies on the right side of each case."""
    from scipy.stats import rankdata

    severe, others = int(truth.sum()), int((~truth).sum())
    ranks = rankdata(scores, axis=1)
    placed = np.empty(scores.shape)
    placed[:, truth] = (ranks[:, truth] - rankdata(scores[:, truth], axis=1)) / others
    placed[:, ~truth] = 1 - (ranks[:, ~truth] - rankdata(scores[:, ~truth], axis=1)) / severe
    return placed
