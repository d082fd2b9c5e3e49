"""Is this scan like those the network was trained on? Distance of its embedding to the nearest training ones.

Each dimension is divided by its spread over the training scans; the distance is the mean over the nearest
:data:`NEIGHBOURS` training scans of other patients, per root dimension (Sun et al. 2022, ICML, use the k-th nearest).
The limit is a quantile of the distances that scans of the cohort itself have: training scans to those of other
patients, and validation scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

NEIGHBOURS = 5
LEAST_SCANS = 12
"""Fewer scans give no limit worth the name."""


@dataclass(frozen=True)
class Reference:
    """Embeddings of training scans, and how far from them is too far.

    Attributes:
        embeddings: ``[n, d]`` float32.
        limit: the largest distance that passes.
        usual: distances of the cohort's own scans, ascending; what ``limit`` is a quantile of.
    """

    embeddings: NDArray[np.float32] = field(repr=False)
    limit: float
    usual: tuple[float, ...] = field(repr=False)

    def distance(self, embedding: ArrayLike) -> float:
        """Distance of one embedding ``[d]``."""
        return float(_nearest(np.asarray(embedding)[None], self.embeddings, _scale(self.embeddings))[0])

    def share_farther(self, distance: float) -> float:
        """Share of the cohort's own scans that lie at least as far out."""
        return float(np.mean(np.asarray(self.usual) >= distance))


def fit_reference(
    embeddings: ArrayLike, patients: Sequence[str], held_out: ArrayLike, *, quantile: float = 0.975
) -> Reference | None:
    """Learn what is usual.

    Args:
        embeddings: ``[n, d]`` of training scans.
        patients: ``[n]``, whose they are: a scan is never measured against scans of its own patient.
        held_out: ``[m, d]`` of validation scans, perhaps none.
        quantile: of the usual distances, that becomes the limit.

    Returns:
        The reference, or None where there are fewer than :data:`LEAST_SCANS` training scans.
    """
    known = np.asarray(embeddings, dtype=np.float32)
    if len(known) < LEAST_SCANS:
        return None
    scale = _scale(known)
    other = np.array(patients)[:, None] != np.array(patients)[None]
    usual = [_nearest(row[None], known[mask], scale)[0] for row, mask in zip(known, other, strict=True) if mask.any()]
    fresh = np.asarray(held_out, dtype=np.float32).reshape(-1, known.shape[1])
    usual += _nearest(fresh, known, scale).tolist()
    if not usual:
        return None
    return Reference(known, float(np.quantile(usual, quantile)), tuple(sorted(map(float, usual))))


def _scale(known: NDArray[np.float32]) -> NDArray[np.float64]:
    """Spread of each dimension; one that hardly varies gets a tenth of the median spread, not a division by zero."""
    spread = known.astype(np.float64).std(axis=0)
    floor = 0.1 * float(np.median(spread[spread > 0])) if np.any(spread > 0) else 1.0
    return np.maximum(spread, floor)


def _nearest(
    rows: NDArray[np.floating], known: NDArray[np.floating], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    gaps = (rows[:, None, :].astype(np.float64) - known[None].astype(np.float64)) / scale
    distances = np.sort(np.sqrt(np.mean(gaps**2, axis=2)), axis=1)
    return distances[:, :NEIGHBOURS].mean(axis=1)
