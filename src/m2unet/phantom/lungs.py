"""The two lungs: the chest cavity above the diaphragm, less the mediastinum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m2unet.phantom.grid import FloatArray
from m2unet.phantom.mediastinum import mediastinum
from m2unet.phantom.parameters import AnatomyParameters
from m2unet.phantom.shape import Points, soft_min
from m2unet.phantom.thorax import cavity, cavity_radius

SULCUS_DROP = 0.085
"""How far below height 0 the diaphragm meets the wall at the back; its rounded edge brings the lungs to 0."""


@dataclass(frozen=True)
class LungFields:
    """Fields in mm, positive inside; all ``[z, y, x]``.

    Attributes:
        both: the lungs, parted at ``x = 0``.
        wall: the chest cavity.
        above_diaphragm: distance above the diaphragm's surface.
        soft: heart and great vessels; what the mediastinum holds beside them is fat.
    """

    both: FloatArray
    wall: FloatArray
    above_diaphragm: FloatArray
    soft: FloatArray


def diaphragm_height(p: AnatomyParameters, points: Points) -> FloatArray:
    """Height of the diaphragm's surface in mm over each ``(y, x)``, in inner coordinates."""
    height, half_w, half_d = p.lung_height_mm, p.half_width_mm, p.half_depth_mm
    base = Points(
        np.float32(0.12 * height) + 0 * points.z[:1], points.y[:1], points.x[:1], points.z[:1], points.spacing_mm
    )
    edge = np.clip(cavity_radius(p, base), 0, 1.0) ** np.float32(p.dome_flatness)
    yn, xn = base.y / np.float32(half_d), base.x / np.float32(half_w)
    right = p.dome_right * _dome(yn, -xn, 0.40) * height
    left = p.dome_left * _dome(yn, xn, 0.45) * height
    share = 1 / (1 + np.exp(-base.x / np.float32(9.0)))
    dome = right * (1 - share) + left * share
    edge = edge ** (1 + np.float32(0.35) * share)
    front = np.clip((0.4 - yn) / 1.3, 0, 1.1)
    sulcus = (p.sulcus_front * front - SULCUS_DROP) * height + np.float32(p.left_rise_mm) * (
        share if p.left_rise_mm > 0 else share - 1
    )
    return np.asarray(dome * (1 - edge) + np.minimum(sulcus, dome) * edge, np.float32)


def _dome(yn: FloatArray, xn: FloatArray, top: float) -> FloatArray:
    forward = np.where(yn < -0.2, 0.35 * (yn + 0.2) ** 2, 0.62 * (yn + 0.2) ** 2)
    return np.asarray(1 - forward - 0.55 * (xn - top) ** 2, np.float32)


def lung_fields(p: AnatomyParameters, points: Points) -> LungFields:
    """Both lungs and what bounds them."""
    wall = cavity(p, points)
    surface = diaphragm_height(p, points)
    slope = np.zeros_like(surface)
    for axis in (1, 2):
        slope += np.gradient(surface, points.spacing_mm[axis], axis=axis) ** 2
    above = np.asarray((points.inner_z - surface) / np.sqrt(1 + np.minimum(slope, 9)), np.float32)
    between, soft = mediastinum(p, points)
    both = soft_min(soft_min(wall, above, 6), -between, 8)
    both = np.minimum(both, np.abs(points.x))
    return LungFields(
        both=np.asarray(both, np.float32),
        wall=wall,
        above_diaphragm=above,
        soft=soft,
    )
