"""The fissures that part the lungs into lobes, as signed distances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m2unet.phantom.grid import FloatArray
from m2unet.phantom.parameters import AnatomyParameters, MinorFissure, ObliqueFissure
from m2unet.phantom.shape import Points

_ROOT = np.float32(2**-0.5)


def oblique(p: AnatomyParameters, fissure: ObliqueFissure, points: Points, side: int) -> FloatArray:
    """Signed distance in mm from a major fissure, positive above it; ``side`` is -1 right, 1 left."""
    h = np.float32(p.lung_height_mm)
    z, y = points.inner_z / h, points.y / h
    s = side * points.x / h - np.float32(0.28)
    t = np.clip((z + y) * _ROOT - np.float32(0.35), -0.45, 0.45)
    f = fissure
    bend = f.level + f.slope * t + f.bend * t * t + f.tilt * s + f.bow * s * s + f.twist * s * t
    rate_t = f.slope + 2 * f.bend * t + f.twist * s
    rate_s = f.tilt + 2 * f.bow * s + f.twist * t
    length = np.sqrt(1 + rate_t**2 + rate_s**2)
    waves = _waves((p.seed, 4, side + 1), t * h, s * h) * np.float32(p.fissure_waves_mm)
    return np.asarray(((z - y) * _ROOT - bend) / length * h + waves, np.float32)


def minor(p: AnatomyParameters, fissure: MinorFissure, points: Points) -> FloatArray:
    """Signed distance in mm from the minor fissure, positive in the right upper lobe."""
    h = np.float32(p.lung_height_mm)
    s = -points.x / h - np.float32(0.28)
    y = points.y / h + np.float32(0.15)
    level = fissure.level + fissure.tilt * s + fissure.bow * s * s + fissure.slope * y + fissure.bend * y * y
    rate = (fissure.tilt + 2 * fissure.bow * s) ** 2 + (fissure.slope + 2 * fissure.bend * y) ** 2
    waves = _waves((p.seed, 5), y * h, s * h) * np.float32(p.fissure_waves_mm)
    return np.asarray((points.inner_z / h - level) / np.sqrt(1 + rate) * h + waves, np.float32)


def lobe_codes(
    inside: NDArray[np.bool_], right: NDArray[np.bool_], oblique: FloatArray, minor: FloatArray
) -> NDArray[np.uint8]:
    """Lobe codes from the lungs' mask, the side, and the fissures' signed distances."""
    one, two, three, four, five = np.arange(1, 6, dtype=np.uint8)
    upper = np.where(right, np.where(minor > 0, one, two), four)
    return np.where(oblique > 0, upper, np.where(right, three, five)) * inside


def _waves(seed: tuple[int, ...], along: FloatArray, across: FloatArray) -> FloatArray:
    """A smooth undulation over two coordinates in mm, standard deviation 1."""
    rng = np.random.default_rng(seed)
    total: FloatArray = np.zeros((1, 1, 1), np.float32)
    for length in (130.0, 95.0, 70.0, 52.0):
        angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        k = 2 * np.pi / length
        turn = np.float32(k * np.cos(angle)) * along + np.float32(k * np.sin(angle)) * across
        total = np.asarray(total + np.cos(turn + np.float32(phase)) * np.float32(0.5**0.5), np.float32)
    return total
