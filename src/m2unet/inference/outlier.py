"""Is this scan like those the network was trained on? Distance of what its encoder saw to the training scans.

A scan's signature is the mean and the spread over patches of the encoder's channels at several depths. Usual scans are
described by one Gaussian, fitted to the signatures of training scans; the distance is Mahalanobis's (Lee et al. 2018,
NeurIPS; González et al. 2022, Med Image Anal 82:102596, on features of lung CT), with Ledoit and Wolf's shrinkage
(2004, J Multivar Anal 88:365-411), because there are more channels than scans. The vector before the classifier, which
served before (version 1), forgets what severity does not need.

The limit is set on validation scans at a stated rate of false alarms, see :func:`prediction_limit`. With fewer than
:data:`LEAST_HELD_OUT` of them, training scans take their place, each measured against a Gaussian fitted without its own
patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.errors import M2UNetError
from m2unet.inference.severity import SeverityEstimate

VERSION = 2
LEAST_SCANS = 12
"""Fewer training scans describe nothing."""

LEAST_HELD_OUT = 10
PARTS = 50
"""Into at most so many parts, by patient, training scans fall when they are measured against each other: distances
depend on how many scans a Gaussian is fitted to, so as few as practical are left out."""

NEIGHBOURS = 5
"""Of version 1: the mean distance of the embedding to so many nearest training scans."""

_LEAST_SHRINKAGE = 1e-3


@dataclass(frozen=True)
class Gaussian:
    """Normal distribution of signatures, each dimension divided by its spread over the training scans.

    Attributes:
        mean, scale: ``[d]``.
        axes: ``[r, d]`` orthonormal directions in which training scans differ.
        variance: ``[r]`` along them, shrunk.
        rest: variance in every other direction.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    axes: NDArray[np.float64]
    variance: NDArray[np.float64]
    rest: float

    @classmethod
    def fit(cls, vectors: NDArray[np.floating]) -> Gaussian:
        """Fit to ``[n, d]``, n at least 2; the covariance is Ledoit and Wolf's."""
        from sklearn.covariance import ledoit_wolf_shrinkage

        known = vectors.astype(np.float64)
        mean, scale = known.mean(axis=0), _scale(known)
        rows = (known - mean) / scale
        _, singular, axes = np.linalg.svd(rows, full_matrices=False)
        average = float(np.mean(rows**2)) or 1.0
        kept = singular**2 > 1e-12 * len(rows) * average
        share = max(float(ledoit_wolf_shrinkage(rows, assume_centered=True)), _LEAST_SHRINKAGE)
        variance = (1 - share) * singular[kept] ** 2 / len(rows) + share * average
        return cls(mean, scale, axes[kept], variance, share * average)

    def distance(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """Mahalanobis distance ``[m]`` of ``[m, d]``, per root dimension: about 1 for usual ones."""
        rows = (np.asarray(vectors, dtype=np.float64) - self.mean) / self.scale
        along = rows @ self.axes.T
        across = np.maximum((rows**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        return np.sqrt(((along**2 / self.variance).sum(axis=1) + across / self.rest) / len(self.mean))


@dataclass(frozen=True)
class Reference:
    """Vectors of training scans, and how far from them is too far.

    Attributes:
        vectors: ``[n, d]`` float32.
        limit: the largest distance that passes.
        usual: distances of the cohort's own scans, ascending; what ``limit`` was set on.
        version: 2 is what this module describes; 1 compares embeddings by their nearest neighbours.
    """

    vectors: NDArray[np.float32] = field(repr=False)
    limit: float
    usual: tuple[float, ...] = field(repr=False)
    version: int = VERSION

    def vector(self, estimate: SeverityEstimate) -> tuple[float, ...]:
        """What of an estimate is compared; empty where the method has none."""
        return estimate.embedding if self.version == 1 else estimate.signature

    def distance(self, vector: ArrayLike) -> float:
        """Distance of one vector ``[d]``."""
        rows = np.asarray(vector, dtype=np.float64)[None]
        if self.version == 1:
            return float(_nearest(rows, self.vectors, _scale(self.vectors.astype(np.float64)))[0])
        return float(self._gaussian.distance(rows)[0])

    def share_farther(self, distance: float) -> float:
        """Share of the cohort's own scans that lie at least as far out."""
        return float(np.mean(np.asarray(self.usual) >= distance))

    @cached_property
    def _gaussian(self) -> Gaussian:
        return Gaussian.fit(self.vectors)


def fit_reference(
    vectors: ArrayLike, patients: Sequence[str], held_out: ArrayLike, *, quantile: float = 0.975
) -> Reference | None:
    """Learn what is usual.

    Args:
        vectors: ``[n, d]`` of training scans.
        patients: ``[n]``, whose they are.
        held_out: ``[m, d]`` of validation scans, perhaps none.
        quantile: share of usual scans that is to pass; the others are false alarms.

    Returns:
        The reference, or None where there are fewer than :data:`LEAST_SCANS` training scans, or all are of one patient
        and validation scans are too few.
    """
    known = np.asarray(vectors, dtype=np.float32)
    if len(known) < LEAST_SCANS:
        return None
    fresh = np.asarray(held_out, dtype=np.float32).reshape(-1, known.shape[1])
    usual = Gaussian.fit(known).distance(fresh) if len(fresh) >= LEAST_HELD_OUT else _among(known, patients)
    if usual.size == 0:
        return None
    return Reference(known, prediction_limit(usual, quantile), tuple(np.sort(usual).tolist()))


def _among(known: NDArray[np.float32], patients: Sequence[str]) -> NDArray[np.float64]:
    """Distances of training scans, each against a Gaussian of other patients' scans."""
    found = [Gaussian.fit(known[~part]).distance(known[part]) for part in _parts(patients)]
    return np.concatenate(found) if found else np.zeros(0)


def _parts(patients: Sequence[str]) -> Iterator[NDArray[np.bool_]]:
    """Masks ``[n]`` of parts that share no patient; none for a single patient."""
    names = sorted(set(patients))
    if len(names) < 2:
        return
    part_of = {name: number % PARTS for number, name in enumerate(names)}
    parts = np.array([part_of[name] for name in patients])
    for part in range(min(PARTS, len(names))):
        yield parts == part


def prediction_limit(usual: NDArray[np.float64], quantile: float) -> float:
    """One-sided prediction limit for the distance of the next usual scan.

    The larger of two: Student's t on the logarithm, and the distance of rank (n + 1) * quantile or the largest, which
    holds for distances of any distribution (conformal prediction, Vovk et al. 2005). The first alone passes too few
    where distances are skewed, as those of several scanners are.

    Args:
        usual: ``[n]`` distances, n at least 2.
        quantile: share of usual scans that is to pass, below 1.

    Raises:
        M2UNetError: the quantile is not below 1: no limit would ever be passed.
    """
    from scipy.special import stdtrit

    if not 0 < quantile < 1:
        raise M2UNetError("The share of usual scans that pass must lie below 1", found=quantile, expected="e.g. 0.975")
    logs = np.log(np.maximum(usual, np.finfo(np.float64).tiny))
    count = len(logs)
    reach = float(stdtrit(count - 1, quantile)) * float(logs.std(ddof=1)) * np.sqrt(1 + 1 / count)
    rank = min(count, int(np.ceil((count + 1) * quantile)))
    return max(float(np.exp(logs.mean() + reach)), float(np.sort(usual)[rank - 1]))


def _scale(known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spread of each dimension; one that hardly varies gets a tenth of the median spread, not a division by zero."""
    spread = known.std(axis=0)
    floor = 0.1 * float(np.median(spread[spread > 0])) if np.any(spread > 0) else 1.0
    return np.maximum(spread, floor)


def _nearest(
    rows: NDArray[np.floating], known: NDArray[np.floating], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    gaps = (rows[:, None, :].astype(np.float64) - known[None].astype(np.float64)) / scale
    distances = np.sort(np.sqrt(np.mean(gaps**2, axis=2)), axis=1)
    return distances[:, :NEIGHBOURS].mean(axis=1)
