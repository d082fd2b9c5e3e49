"""Lobes end at the fissures seen: within each lung the scores of its lobes spread, and fissures hold them up.

Random walks with prior models (Grady, "Multilabel random walker image segmentation using prior models", CVPR 2005):
of all scores those with the least ``sum w_ij (x_i - x_j)^2 + prior sum (x_i - p_i)^2``, where *p* is what the network
(and the atlas) says and the weight *w* between neighbours falls where the network sees a fissure. Where it sees none
the scores are merely smoothed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import cg

from m2unet.anatomy import LEFT_CODES, RIGHT_CODES
from m2unet.inference.chest_grid import PIXEL_MM

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class WalkConfig:
    """How scores spread.

    Attributes:
        prior: pull to the network's scores beside the pull of a neighbour in the plane; scores spread over about
            ``1 / sqrt(prior)`` pixels.
        barrier: a sure fissure weakens the pull across it to ``exp(-barrier)``.
        least: score of a lung from which a voxel takes part.
        tolerance, iterations: of the conjugate gradients.
    """

    prior: float = 0.01
    barrier: float = 10.0
    least: float = 0.02
    tolerance: float = 1e-3
    iterations: int = 300


def follow_fissures(
    scores: NDArray[np.float16], fissures: NDArray[np.floating], step_mm: float, config: WalkConfig | None = None
) -> None:
    """Let the scores of each lung's lobes spread up to the fissures, in place; what a lung has in all stays.

    Args:
        scores: ``[7, z, y, x]`` class probabilities on the working grid.
        fissures: ``[z, y, x]`` probability of a visible fissure.
        step_mm: distance of the slices.
        config: the defaults if None.
    """
    settings = config or WalkConfig()
    totals = [scores[list(codes)].sum(axis=0, dtype=np.float32) for codes in (RIGHT_CODES, LEFT_CODES)]
    for codes, total, other in zip((RIGHT_CODES, LEFT_CODES), totals, totals[::-1], strict=True):
        inside = (total > settings.least) & (total >= other)
        if not inside.any():
            continue
        share = [scores[code][inside].astype(np.float32) / total[inside] for code in codes]
        walked = _walk(share[:-1], inside, np.asarray(fissures, np.float32), step_mm, settings)
        walked.append(np.clip(1 - np.sum(walked, axis=0), 0, 1))
        for code, values in zip(codes, walked, strict=True):
            scores[code][inside] = values * total[inside]


def _walk(
    priors: list[FloatArray], inside: NDArray[np.bool_], fissures: FloatArray, step_mm: float, settings: WalkConfig
) -> list[FloatArray]:
    weights = _weights(inside, fissures, step_mm, settings.barrier)
    degree = weights.sum(axis=1) + np.float32(settings.prior)
    system = diags_array(degree) - weights
    inverse = diags_array(1 / degree)
    found = []
    for prior in priors:
        target = np.float32(settings.prior) * prior
        values, _ = cg(system, target, x0=prior, rtol=settings.tolerance, maxiter=settings.iterations, M=inverse)
        found.append(np.clip(values, 0, 1).astype(np.float32))
    return found


def _weights(inside: NDArray[np.bool_], fissures: FloatArray, step_mm: float, barrier: float) -> csr_array:
    """Symmetric pulls between face neighbours, 1 in the plane where there is no fissure."""
    count = int(inside.sum())
    number = np.full(inside.shape, -1, np.int32)
    number[inside] = np.arange(count, dtype=np.int32)
    first, second, pulls = [], [], []
    for axis, distance in enumerate((step_mm, PIXEL_MM, PIXEL_MM)):
        a = tuple(slice(None, -1) if k == axis else slice(None) for k in range(3))
        b = tuple(slice(1, None) if k == axis else slice(None) for k in range(3))
        both = inside[a] & inside[b]
        between = np.maximum(fissures[a][both], fissures[b][both])
        first.append(number[a][both])
        second.append(number[b][both])
        pulls.append(np.float32((PIXEL_MM / distance) ** 2) * np.exp(-np.float32(barrier) * between))
    i, j, pull = (np.concatenate(part) for part in (first, second, pulls))
    return csr_array(
        (np.concatenate([pull, pull]), (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(count, count)
    )
