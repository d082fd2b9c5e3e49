"""What lies between the lungs: spine, heart, great vessels, hila."""

from __future__ import annotations

import numpy as np

from m2unet.phantom.grid import FloatArray
from m2unet.phantom.parameters import AnatomyParameters
from m2unet.phantom.shape import Points, as_distance, ellipsoid, profile, soft_max, tube
from m2unet.phantom.thorax import HEIGHTS, outline


def spine_y(p: AnatomyParameters, z: FloatArray) -> FloatArray:
    """Depth of the vertebral bodies' centres at heights ``z``, in mm."""
    half = p.half_depth_mm
    return profile(
        (-0.5, 0, 0.2, 0.5, 0.75, 0.95, 1.15, 1.4),
        (0.40 * half, 0.50 * half, 0.56 * half, 0.60 * half, 0.52 * half, 0.36 * half, 0.16 * half, 0.05 * half),
        z / np.float32(p.lung_height_mm),
    )


def heart_frame(p: AnatomyParameters) -> tuple[float, float, float, float]:
    """Heart's centre ``(z, y, x)`` and half width, in mm."""
    half = p.heart_width * p.half_width_mm
    x = half * (1 - 2 * p.heart_shift)
    dome = 0.4 * p.dome_right + 0.6 * p.dome_left
    return (dome + 0.115) * p.lung_height_mm, -0.33 * p.half_depth_mm, x, half


def great_vessels(p: AnatomyParameters) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Paths ``[n, 3]`` (z, y, x) and radii in mm of the large vessels of the mediastinum."""
    h, d = p.lung_height_mm, p.half_depth_mm
    size = (p.half_width_mm / 139) ** 0.7
    spine = {k: float(spine_y(p, np.array([k * h], np.float32))[0]) for k in (-0.6, 0, 0.2, 0.4, 0.6, 0.7)}
    arch = 0.73 * h
    aorta = [
        (0.44 * h, -0.25 * d, 4), (0.55 * h, -0.36 * d, -16), (0.65 * h, -0.32 * d, -14), (arch, -0.12 * d, -2),
        (arch + 4, 0.12 * d, 16), (0.68 * h, 0.34 * d, 26), (0.6 * h, spine[0.6] - 22, 27), (0.4 * h, spine[0.4] - 22, 25),
        (0.2 * h, spine[0.2] - 28, 16), (0, spine[0] - 30, 7), (-0.6 * h, spine[-0.6] - 30, 4),
    ]  # fmt: skip
    y = 0.05 * d
    return {
        "aorta": (np.array(aorta, float), size * np.array([15, 15, 15, 14, 13, 12.5, 12, 11.5, 11, 10.5, 9.5])),
        "vena_cava": (np.array([(0.45 * h, -0.12 * d, -32), (0.6 * h, -0.16 * d, -30), (0.8 * h, -0.2 * d, -22), (0.9 * h, -0.1 * d, -20)], float), size * np.array([11, 10, 9, 8.0])),
        "brachiocephalic": (np.array([(0.8 * h, -0.22 * d, -20), (0.84 * h, -0.2 * d, 8), (0.9 * h, -0.08 * d, 30)], float), size * np.array([7, 6.5, 6.0])),
        "carotid": (np.array([(arch, -0.02 * d, 8), (0.95 * h, 0.06 * d, 20), (1.5 * h, -10, 28)], float), size * np.array([5.5, 4.5, 4])),
        "innominate": (np.array([(arch, -0.12 * d, -6), (0.92 * h, -0.02 * d, -20), (1.5 * h, -10, -28)], float), size * np.array([6.5, 5.5, 4])),
        "pulmonary": (np.array([(0.46 * h, -0.45 * d, 18), (0.575 * h, -0.3 * d, 20), (0.6 * h, y - 12, 8), (0.575 * h, y - 4, -30)], float), size * np.array([14, 13, 12, 9.5])),
        "pulmonary_left": (np.array([(0.575 * h, -0.3 * d, 20), (0.61 * h, y, 32), (0.565 * h, y + 10, 40)], float), size * np.array([12, 11.5, 9])),
        "vena_cava_inferior": (np.array([(0.36 * h, 0.0, -22), (0.2 * h, 0.12 * d, -22), (-0.6 * h, 0.25 * d, -20)], float), size * np.array([12, 12, 11.0])),
        "oesophagus": (np.array([(1.2 * h, 0.1 * d, 3), (0.9 * h, 0.3 * d, 4), (0.6 * h, 0.32 * d, 6), (0.35 * h, 0.38 * d, 8), (0.2 * h, 0.25 * d, 14)], float), np.array([8, 8, 8, 8.5, 9.0])),
        "atrium": (np.array([(0.46 * h, 0.12 * d, -26), (0.46 * h, 0.14 * d, 22)], float), size * np.array([20, 20.0])),
    }  # fmt: skip


def heart(p: AnatomyParameters, points: Points) -> FloatArray:
    """Field of the heart with its sac: two tilted ellipsoids, apex to the left and front."""
    z, y, x, half = heart_frame(p)
    h, d = p.lung_height_mm, p.half_depth_mm
    tilt = np.float32(0.35)
    shifted = Points(
        points.z, points.y, points.x, points.inner_z + tilt * (points.x - np.float32(x)), points.spacing_mm
    )
    left = ellipsoid(shifted, (z + 0.015 * h, y - 0.04 * d, x + 0.12 * half), (0.175 * h, 0.52 * d, 0.88 * half))
    right = ellipsoid(points, (z + 0.02 * h, y + 0.1 * d, x - 0.36 * half), (0.155 * h, 0.46 * d, 0.64 * half))
    return soft_max(left, right, 14)


def _resting(p: AnatomyParameters, points: Points, organ: FloatArray) -> FloatArray:
    """The heart's sac and the fat below it, down through the diaphragm: no lung comes between them."""
    middle = np.float32(heart_frame(p)[0])
    z = np.maximum(points.inner_z, middle) + np.float32(0.25) * np.minimum(points.inner_z - middle, 0)
    below = heart(p, Points(points.z, points.y, points.x, z, points.spacing_mm))
    return np.maximum(organ, below) + np.float32(2.5)


def mediastinum(p: AnatomyParameters, points: Points) -> tuple[FloatArray, FloatArray]:
    """Field of everything the lungs cannot enter between them, and field of its soft organs (the rest is fat)."""
    h, d = np.float32(p.lung_height_mm), np.float32(p.half_depth_mm)
    z = points.inner_z
    organs = heart(p, points)
    outer = _resting(p, points, organs)
    for name, (path, radii) in great_vessels(p).items():
        vessel = tube(points, path, radii)
        organs = np.maximum(organs, vessel) if name != "atrium" else soft_max(organs, vessel, 10)
        if name not in ("carotid", "innominate", "brachiocephalic"):
            outer = soft_max(outer, vessel + np.float32(2.0), 14)
    for side, out in ((-1, 34), (1, 38)):
        hilum = ellipsoid(
            points, ((p.carina - 0.10) * p.lung_height_mm, 0.08 * p.half_depth_mm, side * out), (36, 24, 22)
        )
        outer = soft_max(outer, hilum, 14)
    # The column behind: vertebral bodies, widening towards the ribs' heads.
    back = points.y - spine_y(p, points.z)
    width = np.float32(17) + np.float32(0.4) * np.clip(back - 2, 0, 60)
    column = np.minimum(width - np.abs(points.x), back + 21)
    outer = soft_max(outer, np.asarray(column * np.ones_like(outer), np.float32), 14)
    # The upper mediastinum around the windpipe, and the thin partition before it.
    half = profile((0, 0.42, 0.5, 0.62, 0.8, 1.0), (0, 12, 26, 31, 30, 26), z / h) * np.float32(
        p.mediastinum_width_mm / 31
    )
    o = outline(p, points.z)
    fore = profile((0.4, 0.55, 0.7, 0.85, 1.0), (-0.5, -0.50, -0.36, -0.2, 0.0), z / h) * d
    rear = spine_y(p, points.z) + 5
    middle, reach = (fore + rear) / 2, (rear - fore) / 2
    q = np.sqrt(((points.x - 2) / np.maximum(half, 1)) ** 2 + ((points.y - middle) / reach) ** 2)
    upper = np.asarray((1 - q) * np.maximum(half, 1), np.float32)
    outer = soft_max(outer, upper, 12)
    sheet = (
        np.float32(2.0)
        + np.float32(0.10) * np.clip(o.front + np.float32(26) - points.y, 0, 60)
        - np.abs(points.x - np.float32(4))
    )
    outer = soft_max(outer, np.asarray(sheet * np.ones_like(outer), np.float32), 8)
    behind = np.minimum(np.float32(9) - np.abs(points.x - 5), np.minimum(points.y + 0.1 * d, rear - points.y))
    outer = soft_max(outer, np.asarray(behind * np.ones_like(outer), np.float32), 8)
    return outer, organs


__all__ = ["HEIGHTS", "as_distance", "great_vessels", "heart", "heart_frame", "mediastinum", "spine_y"]
