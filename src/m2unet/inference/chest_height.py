"""Where each slice lies between the lungs' base and apex: a line through what the network says of single slices.

A scan from neck to abdomen and one that cuts the lungs are placed alike, because every slice is recognised for itself;
what is cut off is counted in. (Body part regression: K. Yan et al., 2018.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

LUNG_MM = 265.0
"""Usual height of the lungs (51 lobe maps), used where a scan is too low to tell."""
LUNG_RANGE_MM = (150.0, 370.0)
LEAST_SPAN_MM = 90.0
"""A scan with less lung than this in height cannot tell the lungs' height."""


@dataclass(frozen=True)
class HeightFit:
    """A scan's slices in the chest.

    Attributes:
        heights: ``[z]`` of the working slices: -1 the lungs' base, 1 their apex.
        lungs_mm: height of the whole lungs, as fitted or, in a low scan, as usual.
        error: mean deviation of the slices from the line, in units of ``heights``.
        measured: whether the lungs' height was fitted.
    """

    heights: FloatArray
    lungs_mm: float
    error: float
    measured: bool


def fit_heights(place: FloatArray, lung_cm2: FloatArray, step_mm: float) -> HeightFit | None:
    """Fit a line to the heights of slices that hold lung.

    Args:
        place: ``[z, 2]`` height and log of its uncertainty, one row a working slice.
        lung_cm2: ``[z]`` area of lung found.
        step_mm: distance of the slices.

    Returns:
        The fit, or None where no slice holds lung.
    """
    z = np.arange(len(place)) * step_mm
    weight = np.exp(-np.clip(place[:, 1], -4, 3)) * np.clip(lung_cm2 / 20.0, 0, 1)
    held = np.flatnonzero(weight > 0.01)
    if not len(held):
        return None
    z_held, h, weight = z[held], place[held, 0].astype(float), weight[held]
    measured = bool(z_held[-1] - z_held[0] >= LEAST_SPAN_MM)
    slope = 2 / LUNG_MM
    offset = _median(h - slope * z_held, weight)
    for _ in range(20):  # least absolute deviations by reweighted squares
        robust = weight / np.maximum(np.abs(h - slope * z_held - offset), 0.03)
        if measured:
            middle_z, middle_h = np.average(z_held, weights=robust), np.average(h, weights=robust)
            spread = np.average(np.square(z_held - middle_z), weights=robust)
            slope = float(np.average((z_held - middle_z) * (h - middle_h), weights=robust) / max(spread, 1e-6))
            slope = float(np.clip(slope, 2 / LUNG_RANGE_MM[1], 2 / LUNG_RANGE_MM[0]))
        offset = float(np.average(h - slope * z_held, weights=robust))
    error = float(np.average(np.abs(h - slope * z_held - offset), weights=weight))
    return HeightFit((slope * z + offset).astype(np.float32), 2 / slope, error, measured)


def _median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])
