"""The written law that makes a phantom patient severe.

For lobe ``l`` with opacified share ``e_l`` and consolidated share ``c_l`` of its volume (``c_l <= e_l``, both 0-1)

    score = 100 * sum_l  w_l * (e_l + DENSE_WEIGHT * c_l)
    P(severe) = 1 / (1 + exp(-(score - THRESHOLD) / WIDTH))

and P is 0 or 1 beyond ``THRESHOLD`` plus or minus ``DOUBT``: consolidation counts double, and only borderline cases
are in doubt. The form follows the CT severity scores in use, which add up the opacified extent of
the five lobes (Pan et al. 2020; Yang et al. 2020), with the lobes weighted by their usual share of lung volume. The
figures are this project's and claim nothing about patients.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.cohort.manifest import Grade

LOBE_WEIGHTS: tuple[float, ...] = (0.20, 0.08, 0.26, 0.23, 0.23)
"""One a lobe, in the order RUL RML RLL LUL LLL; they sum to 1."""

DENSE_WEIGHT = 1.0
"""How much a consolidated share adds to its extent."""

THRESHOLD = 30.0
"""Score at which severe and non-severe are equally likely."""

WIDTH = 6.0
"""Width of the logistic step, in points of the score."""

DOUBT = 10.0
"""Distance from the threshold beyond which the label is certain."""

MILD_BELOW = 7.0
CRITICAL_FROM = 65.0


def severity_score(extents: ArrayLike, consolidated: ArrayLike) -> NDArray[np.float64]:
    """Score of one or many disease states.

    Args:
        extents: opacified share of each lobe, 0-1, ``[..., 5]`` in the order of the lobe codes.
        consolidated: consolidated share of each lobe, 0-1, same shape.

    Returns:
        Score from 0 to ``100 * (1 + DENSE_WEIGHT)``, shape ``[...]``.
    """
    load = np.asarray(extents, dtype=float) + DENSE_WEIGHT * np.asarray(consolidated, dtype=float)
    return 100.0 * load @ np.asarray(LOBE_WEIGHTS)


def severe_probability(score: ArrayLike) -> NDArray[np.float64]:
    """Probability that a patient of this score is labelled severe."""
    above = np.asarray(score, dtype=float) - THRESHOLD
    probability = 1.0 / (1.0 + np.exp(-np.clip(above / WIDTH, -50, 50)))
    return np.where(np.abs(above) > DOUBT, above > 0, probability).astype(float)


def grade_of(score: float, severe: bool) -> Grade:
    """The clinical grade written for a label: the score decides within the label."""
    if severe:
        return "critical" if score >= CRITICAL_FROM else "severe"
    return "mild" if score < MILD_BELOW else "moderate"
