"""Where each slice lies between the lungs' base and apex.

An end of the lungs that the scan shows is taken from the lungs found in the first pass. For an end that is cut off
there is a line through what the network says of single slices, each recognised for itself (body part regression, K. Yan
et al., 2018): so a scan from neck to abdomen and one that cuts the lungs are placed alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]

LUNG_MM = 265.0
"""Usual height of the lungs (51 lobe maps), used where a scan is too low to tell."""
LUNG_RANGE_MM = (150.0, 370.0)
END_CM2 = 1.5
"""Slices with less lung than this lie beyond the lungs' ends."""
CUT_CM2 = 6.0
"""More lung than this in an outermost slice: the lungs are cut off there."""
LEAST_SPAN_MM = 90.0
"""A scan with less lung than this in height cannot tell the lungs' height."""


@dataclass(frozen=True)
class HeightFit:
    """A scan's slices in the chest.

    Attributes:
        heights: ``[z]`` of the working slices: -1 the lungs' base, 1 their apex.
        lungs_mm: height of the whole lungs, as fitted or, in a low scan, as usual.
        error: mean deviation of what the network says of the slices from a line, in units of ``heights``.
        measured: whether the lungs' height was measured or fitted.
        ends: how many ends of the lungs the scan shows.
    """

    heights: FloatArray
    lungs_mm: float
    error: float
    measured: bool
    ends: int = 0


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
    line = _line(z[held], place[held, 0].astype(float), weight[held])
    measured = bool(z[held[-1]] - z[held[0]] >= LEAST_SPAN_MM)
    slope, offset, ends = _anchored(line, lung_cm2, step_mm)
    heights = (slope * z + offset).astype(np.float32)
    error = float(np.average(np.abs(place[held, 0] - line[0] * z[held] - line[1]), weights=weight[held]))
    return HeightFit(heights, 2 / slope, error, measured or ends == 2, ends)


def _line(z: FloatArray, h: FloatArray, weight: FloatArray) -> tuple[float, float]:
    """Slope and offset by least absolute deviations (reweighted squares); the usual slope for a low scan."""
    slope = 2 / LUNG_MM
    offset = _median(h - slope * z, weight)
    for _ in range(20):
        robust = weight / np.maximum(np.abs(h - slope * z - offset), 0.03)
        if z[-1] - z[0] >= LEAST_SPAN_MM:
            middle_z, middle_h = np.average(z, weights=robust), np.average(h, weights=robust)
            spread = np.average(np.square(z - middle_z), weights=robust)
            slope = float(np.average((z - middle_z) * (h - middle_h), weights=robust) / max(spread, 1e-6))
            slope = float(np.clip(slope, 2 / LUNG_RANGE_MM[1], 2 / LUNG_RANGE_MM[0]))
        offset = float(np.average(h - slope * z, weights=robust))
    return slope, offset


def _anchored(line: tuple[float, float], lung_cm2: FloatArray, step_mm: float) -> tuple[float, float, int]:
    """The line moved to the ends of the lungs that the scan shows; and how many it shows."""
    slope, offset = line
    inside = np.flatnonzero(lung_cm2 > END_CM2)
    if len(inside) < 2:
        return slope, offset, 0
    base, apex = float(inside[0] * step_mm), float(inside[-1] * step_mm)
    has_base, has_apex = lung_cm2[0] < CUT_CM2, lung_cm2[-1] < CUT_CM2
    if has_base and has_apex and LUNG_RANGE_MM[0] <= apex - base <= LUNG_RANGE_MM[1]:
        slope = 2 / (apex - base)
        return slope, -1 - slope * base, 2
    if has_base and not has_apex:
        slope = min(slope, 2 / max(apex - base, 1.0))
        return slope, -1 - slope * base, 1
    if has_apex and not has_base:
        slope = min(slope, 2 / max(apex - base, 1.0))
        return slope, 1 - slope * apex, 1
    return slope, offset, 0


def _median(values: FloatArray, weights: FloatArray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])
