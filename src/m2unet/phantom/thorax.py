"""The chest wall: the cavity the lungs fill, the muscle and skin around it, and arms, shoulders and neck."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2unet.phantom.grid import FloatArray
from m2unet.phantom.parameters import AnatomyParameters
from m2unet.phantom.shape import Points, as_distance, ellipsoid, profile, soft_max, tube

# Mean outline of the lungs at heights (share of lung height), as shares of half width and half depth (51 lobe maps).
HEIGHTS = (-0.3, 0.0, 0.10, 0.18, 0.26, 0.34, 0.42, 0.50, 0.58, 0.66, 0.74, 0.82, 0.90, 0.96, 1.0)
WIDTH = (0.82, 0.92, 0.96, 0.98, 0.965, 0.94, 0.915, 0.89, 0.865, 0.84, 0.795, 0.73, 0.625, 0.49, 0.27)
FRONT = (-0.80, -0.86, -0.90, -0.93, -0.94, -0.945, -0.94, -0.90, -0.86, -0.79, -0.67, -0.47, -0.20, 0.00, 0.13)
BACK = (0.74, 0.80, 0.86, 0.90, 0.93, 0.96, 0.97, 0.97, 0.94, 0.89, 0.83, 0.75, 0.63, 0.52, 0.42)
WIDEST = (0.10, 0.10, 0.06, 0.02, 0.00, 0.00, 0.00, 0.02, 0.05, 0.09, 0.13, 0.18, 0.24, 0.27, 0.27)


@dataclass(frozen=True)
class Outline:
    """Where the chest cavity's wall runs at each height, in mm; arrays shaped like the heights asked for."""

    width: FloatArray
    front: FloatArray
    back: FloatArray
    widest: FloatArray


def outline(p: AnatomyParameters, z: FloatArray) -> Outline:
    """The cavity's outline at heights ``z`` (mm, upright body)."""
    h = z / np.float32(p.lung_height_mm)
    return Outline(
        width=profile(HEIGHTS, WIDTH, h)
        * np.float32(p.half_width_mm)
        * (1 - np.float32(p.taper) * np.clip(h - 0.2, 0, 0.6) / 0.5),
        front=(profile(HEIGHTS, FRONT, h) + np.float32(p.lean) * np.clip((h - 0.35) / 0.35, 0, 1))
        * np.float32(p.half_depth_mm),
        back=profile(HEIGHTS, BACK, h) * np.float32(p.half_depth_mm),
        widest=profile(HEIGHTS, WIDEST, h) * np.float32(p.half_depth_mm),
    )


def cavity_radius(p: AnatomyParameters, points: Points) -> FloatArray:
    """Normalised radius of the chest cavity's cross-section: 0 at each half's centre, 1 on the wall."""
    o = outline(p, points.z)
    side = np.float32(1 + p.asymmetry) * (points.x > 0) + np.float32(1 - p.asymmetry) * (points.x <= 0)
    ax = np.abs(points.x) / side
    v = np.where(
        points.y > o.widest, (points.y - o.widest) / (o.back - o.widest), (o.widest - points.y) / (o.widest - o.front)
    )
    inner = np.where(points.y > o.widest, np.float32(0.45), np.float32(0.45) - np.float32(0.17) * np.clip(v, 0, 1))
    centre = inner * o.width
    u = np.where(ax > centre, (ax - centre) / (o.width - centre), (centre - ax) / (1.6 * centre))
    power = np.float32(p.squareness)
    return np.asarray((u**power + np.abs(v) ** power) ** (1 / power), np.float32)


def cavity(p: AnatomyParameters, points: Points) -> FloatArray:
    """Field of the chest cavity (both lungs, mediastinum and the abdomen's top)."""
    radius = cavity_radius(p, points)
    field = as_distance(1 - np.minimum(radius, 3), points.spacing_mm)
    top = (np.float32(p.lung_height_mm) - points.z) * np.ones_like(field)
    return np.clip(np.minimum(field, top), -90, 90)


def _trunk(p: AnatomyParameters, points: Points, extra: float, fat: bool) -> FloatArray:
    """Field of a trunk section: muscle outline when ``extra`` is 0, skin when it is the fat's thickness."""
    h = points.z / np.float32(p.lung_height_mm)
    w0, d0, m = p.half_width_mm, p.half_depth_mm, p.muscle_mm
    wide = profile(
        (-0.6, 0, 0.4, 0.7, 0.9, 1.05, 1.2, 1.32), (w0 - 6, w0 - 6, w0 - 4, w0 + 6, w0 + 20, w0 + 18, 90, 62), h
    )
    front = profile(
        (-0.6, -0.2, 0.3, 0.6, 0.8, 1.0, 1.15, 1.3),
        (-d0 * 0.92, -d0 * 0.92, -d0 + 4, -d0 * 0.94, -d0 * 0.70, -d0 * 0.30, -44, -45),
        h,
    )
    back = profile((-0.6, 0, 0.4, 0.7, 0.95, 1.1, 1.3), (d0 * 0.86, d0 * 0.90, d0, d0 + 2, d0 * 0.92, d0 * 0.8, 55), h)
    side, ahead, behind = (extra * k for k in ((0.9, 1.0, 0.9) if fat else (1, 1, 1)))
    wide, front, back = wide + m * 0.35 + side, front - m * 0.6 - ahead, back + m + behind
    middle = (front + back) / 2
    v = np.abs(points.y - middle) / ((back - front) / 2)
    u = np.abs(points.x) / wide
    q = (u**2.3 + v**2.3) ** np.float32(1 / 2.3)
    return as_distance(np.asarray(1 - np.minimum(q, 3), np.float32), points.spacing_mm, 30.0)


def muscle(p: AnatomyParameters, points: Points, wall: FloatArray) -> FloatArray:
    """Field of everything under the fat of trunk, shoulders and neck."""
    field = soft_max(_trunk(p, points, 0.0, False), np.asarray(wall + np.float32(p.muscle_mm * 0.72), np.float32), 10)
    for path, radii in _limbs(p):
        field = soft_max(field, _upright_tube(points, path, radii), 15)
    return field


def skin(p: AnatomyParameters, points: Points, flesh: FloatArray) -> FloatArray:
    """Field of the whole body."""
    field = soft_max(_trunk(p, points, p.fat_mm, True), np.asarray(flesh + np.float32(0.75 * p.fat_mm), np.float32), 10)
    if p.sex == "F":
        size = 18 + 0.8 * p.fat_mm
        for side in (-1, 1):
            centre = (0.38 * p.lung_height_mm, -p.half_depth_mm - p.muscle_mm * 0.6, side * 0.55 * p.half_width_mm)
            field = soft_max(field, ellipsoid(points, centre, (2.0 * size, size, 1.7 * size), inner=False), 30)
    return field


def _upright_tube(points: Points, path: NDArray[np.float64], radii: NDArray[np.float64]) -> FloatArray:
    return tube(Points(points.z, points.y, points.x, points.z, points.spacing_mm), path, radii)


def _limbs(p: AnatomyParameters) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Neck, shoulders and upper arms as tubes ``(path, radii)``."""
    h, w = p.lung_height_mm, p.half_width_mm
    limbs = [(np.array([[h - 20, 12, 0], [h + 90, -5, 0], [h + 200, -15, 0]], float), np.array([58, 54, 56.0]))]
    for side in (-1, 1):
        x = side * (w + 32)
        shoulder = np.array([h - 12 if not p.arms_up else h + 12, 22, x * (1.0 if not p.arms_up else 0.92)])
        root = np.array([h + 8, 20, side * 45.0])
        limbs.append((np.array([root, shoulder]), np.array([44, 46.0])))
        elbow = np.array([h + 240, 0, side * (w + 60)] if p.arms_up else [h - 330, 30, side * (w + 72)])
        limbs.append((np.array([shoulder, elbow]), np.array([46, 38.0])))
    return limbs


def arm_bones(p: AnatomyParameters) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The upper arms' bones as tubes."""
    return [(path, np.array([19.0, 11.0])) for path, _ in _limbs(p)[2::2]]
