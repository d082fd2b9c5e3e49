"""An atlas of lobes: how often each is found at a place of its lung; it settles what the network leaves open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LEFT_CODES, RIGHT_CODES

SHAPE = (32, 24, 16)
"""Bins of height, depth (front to back) and breadth (right to left)."""
LEAST_PIXELS = 12
"""A slice with less of a lung has no box for it."""

Box = tuple[float, float, float, float]
Bins = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class LobeAtlas:
    """Shares by lobe.

    Attributes:
        share: ``[5, height, depth, breadth]`` float32, rows RUL RML RLL LUL LLL; those of a side add up to 1.
    """

    share: NDArray[np.float32]

    def apply(self, scores: NDArray[np.float16], heights: NDArray[np.floating], weight: float) -> None:
        """Weigh the scores of the lobes by the atlas, in place; what each side has in all stays.

        Args:
            scores: ``[7, z, y, x]`` class probabilities.
            heights: ``[z]`` -1 the lungs' base, 1 their apex.
            weight: exponent of the atlas; 0 changes nothing.
        """
        for z, height in enumerate(heights):
            here = scores[:, z].astype(np.float32)
            for codes in (RIGHT_CODES, LEFT_CODES):
                rows = list(codes)
                total = here[rows].sum(axis=0)
                box = slice_box(total > 0.5)
                if box is None:
                    continue
                y, x = np.nonzero(total > 0.01)
                known = self.share[:, *bins(float(height), y, x, box)][[code - 1 for code in codes]]
                weighed = (here[rows][:, y, x] + 1e-3) * known**weight
                weighed *= total[y, x] / weighed.sum(axis=0)
                for code, values in zip(codes, weighed, strict=True):
                    scores[code, z, y, x] = values


def slice_box(lung: NDArray[np.bool_]) -> Box | None:
    """Where one lung lies in a slice: ``(y0, y1, x0, x1)``, a hundredth of its pixels left out at each side."""
    y, x = np.nonzero(lung)
    if len(y) < LEAST_PIXELS:
        return None
    y0, y1 = np.quantile(y, (0.01, 0.99))
    x0, x1 = np.quantile(x, (0.01, 0.99))
    return float(y0), float(y1), float(x0), float(x1)


def bins(height: float, y: NDArray[np.intp], x: NDArray[np.intp], box: Box) -> Bins:
    """Bins of pixels of one slice."""
    y0, y1, x0, x1 = box
    relative = ((y - y0) / max(y1 - y0, 1.0), (x - x0) / max(x1 - x0, 1.0))
    level = np.full(len(y), int(np.clip((height + 1) / 2 * SHAPE[0], 0, SHAPE[0] - 1)), np.int64)
    depth, breadth = (
        np.clip(value * count, 0, count - 1).astype(np.int64) for value, count in zip(relative, SHAPE[1:], strict=True)
    )
    return level, depth, breadth
