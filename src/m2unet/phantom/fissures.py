"""The fissures that part the lungs into lobes, as signed distances."""

from __future__ import annotations

import numpy as np

from m2unet.phantom.grid import FloatArray
from m2unet.phantom.parameters import AnatomyParameters, MinorFissure, ObliqueFissure
from m2unet.phantom.shape import Points

_ROOT = np.float32(2**-0.5)


def oblique(p: AnatomyParameters, fissure: ObliqueFissure, points: Points, side: int) -> FloatArray:
    """Signed distance in mm from a major fissure, positive in the upper (and middle) lobe; ``side`` -1 right, 1 left."""
    h = np.float32(p.lung_height_mm)
    z, y = points.inner_z / h, points.y / h
    s = side * points.x / h - np.float32(0.28)
    t = np.clip((z + y) * _ROOT - np.float32(0.35), -0.45, 0.45)
    f = fissure
    bend = f.level + f.slope * t + f.bend * t * t + f.tilt * s + f.bow * s * s + f.twist * s * t
    rate_t = f.slope + 2 * f.bend * t + f.twist * s
    rate_s = f.tilt + 2 * f.bow * s + f.twist * t
    length = np.sqrt(1 + rate_t**2 + rate_s**2)
    return np.asarray(((z - y) * _ROOT - bend) / length * h, np.float32)


def minor(p: AnatomyParameters, fissure: MinorFissure, points: Points) -> FloatArray:
    """Signed distance in mm from the minor fissure, positive in the right upper lobe."""
    h = np.float32(p.lung_height_mm)
    s = -points.x / h - np.float32(0.28)
    y = points.y / h + np.float32(0.15)
    level = fissure.level + fissure.tilt * s + fissure.bow * s * s + fissure.slope * y + fissure.bend * y * y
    rate = (fissure.tilt + 2 * fissure.bow * s) ** 2 + (fissure.slope + 2 * fissure.bend * y) ** 2
    return np.asarray((points.inner_z / h - level) / np.sqrt(1 + rate) * h, np.float32)
