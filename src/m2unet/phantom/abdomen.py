"""Organs below the diaphragm: liver, spleen, stomach, kidneys, bowel and their gas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m2unet.phantom.grid import FloatArray
from m2unet.phantom.parameters import AnatomyParameters
from m2unet.phantom.shape import Points, ellipsoid, soft_max, soft_min


@dataclass(frozen=True)
class AbdomenFields:
    """Fields in mm, positive inside: the liver, other soft organs, and gas within them."""

    liver: FloatArray
    organs: FloatArray
    gas: FloatArray


def abdomen_fields(p: AnatomyParameters, points: Points, wall: FloatArray, above: FloatArray) -> AbdomenFields:
    """The abdomen's organs, kept below the diaphragm and within the wall.

    Args:
        p: the chest.
        points: where.
        wall: field of the chest cavity.
        above: distance above the diaphragm.
    """
    rng = np.random.default_rng((p.seed, 3))
    h, w, d = p.lung_height_mm, p.half_width_mm, p.half_depth_mm
    room = soft_min(np.asarray(wall - 1.5, np.float32), np.asarray(-above - 3, np.float32), 8)
    z, x = points.inner_z, points.x
    edge = np.float32(0.30 * w) - 0.35 * (np.float32(p.dome_right * h) - z) - x
    low = z + np.float32(0.42 * h) + 0.5 * (x + np.float32(w)) * -1 + np.float32(0.3 * w)
    rear = np.float32(0.62 * d) - points.y + 0.4 * np.clip(-x - 30, 0, 80)
    liver = soft_min(
        room, soft_min(np.asarray(edge, np.float32), np.asarray(rear * np.ones_like(room), np.float32), 20), 15
    )
    liver = soft_min(liver, np.asarray(low, np.float32), 20)
    top = p.dome_left * h
    organs = ellipsoid(points, (top - 55, 0.45 * d, 0.62 * w), (62, 0.38 * d, 0.30 * w))
    stomach = ellipsoid(points, (top - 62, -0.20 * d, 0.42 * w), (58, 0.5 * d, 0.36 * w))
    organs = soft_max(organs, stomach, 4)
    level = -0.34 * d + rng.normal(-12, 12)
    gas = soft_min(np.asarray(stomach - 4, np.float32), np.asarray(level - points.y + 0 * stomach, np.float32), 4)
    colon = (top - 50 + rng.normal(0, 10), -0.42 * d + rng.normal(0, 8), 0.70 * w + rng.normal(0, 5))
    bowel = ellipsoid(points, colon, (30, 24, 22))
    organs, gas = soft_max(organs, bowel, 3), np.maximum(gas, bowel - np.float32(2.5))
    for side in (-1, 1):
        kidney = ellipsoid(points, (-0.28 * h + 8 * side, 0.42 * d, side * 0.42 * w), (55, 26, 28))
        organs = np.maximum(organs, kidney)
    for _ in range(7):
        at = (-rng.uniform(0.35, 0.9) * h, rng.uniform(-0.6, 0.1) * d, rng.uniform(-0.6, 0.6) * w)
        loop = ellipsoid(points, at, (rng.uniform(18, 34), rng.uniform(16, 24), rng.uniform(20, 40)))
        organs = soft_max(organs, loop, 6)
        if rng.random() < 0.6:
            gas = np.maximum(gas, np.minimum(loop - 3, np.float32(at[1] + rng.normal(0, 6)) - points.y))
    return AbdomenFields(
        liver=np.asarray(liver, np.float32),
        organs=soft_min(np.asarray(organs, np.float32), room, 3),
        gas=soft_min(np.asarray(gas, np.float32), np.asarray(room - 3, np.float32), 3),
    )
