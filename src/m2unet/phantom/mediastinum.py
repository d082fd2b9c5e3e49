"""What lies between the lungs: spine, heart, great vessels, hila."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m2unet.phantom.grid import FloatArray
from m2unet.phantom.parameters import AnatomyParameters
from m2unet.phantom.shape import Points, ellipsoid, profile, soft_max, tube
from m2unet.phantom.thorax import outline


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


# Vertices (z by lung height, y by half depth, x in mm, radius in mm) of an average chest's tubes.
_TUBES: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "aorta": (
        (0.44, -0.25, 4, 15), (0.55, -0.36, -16, 15), (0.65, -0.32, -14, 15), (0.73, -0.12, -2, 14),
        (0.745, 0.12, 16, 13), (0.68, 0.34, 26, 12.5),
    ),
    "vena_cava": ((0.45, -0.12, -32, 11), (0.60, -0.16, -30, 10), (0.80, -0.20, -22, 9), (0.90, -0.10, -20, 8)),
    "brachiocephalic": ((0.80, -0.22, -20, 7), (0.84, -0.20, 8, 6.5), (0.90, -0.08, 30, 6)),
    "carotid": ((0.73, -0.02, 8, 5.5), (0.95, 0.06, 20, 4.5), (1.50, -0.10, 28, 4)),
    "innominate": ((0.73, -0.12, -6, 6.5), (0.92, -0.02, -20, 5.5), (1.50, -0.10, -28, 4)),
    "pulmonary": (
        (0.46, -0.45, 18, 14), (0.575, -0.30, 20, 13), (0.60, -0.07, 8, 12), (0.575, 0.01, -30, 9.5),
        (0.50, 0.10, -43, 7.5),
    ),
    "pulmonary_left": ((0.575, -0.30, 20, 12), (0.61, 0.05, 32, 11.5), (0.565, 0.15, 42, 9), (0.49, 0.22, 47, 7.5)),
    "vena_cava_inferior": ((0.36, 0.0, -22, 12), (0.20, 0.12, -22, 12), (-0.60, 0.25, -20, 11)),
    "oesophagus": (
        (1.20, 0.10, 3, 8), (0.90, 0.30, 4, 8), (0.60, 0.32, 6, 8), (0.35, 0.38, 8, 8.5), (0.20, 0.25, 14, 9),
    ),
    "atrium": ((0.46, 0.12, -26, 20), (0.46, 0.14, 22, 20)),
}  # fmt: skip
# The aorta's way down beside the spine: z by lung height, mm before the vertebra's centre, x and radius in mm.
_DESCENDING = ((0.6, 22, 27, 12), (0.4, 22, 25, 11.5), (0.2, 28, 16, 11), (0.0, 30, 7, 10.5), (-0.6, 30, 4, 9.5))
_SMALL = ("carotid", "innominate", "brachiocephalic")


def great_vessels(p: AnatomyParameters) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Paths ``[n, 3]`` (z, y, x) and radii in mm of the large vessels of the mediastinum, and of the oesophagus."""
    h, d = p.lung_height_mm, p.half_depth_mm
    size = (p.half_width_mm / 139) ** 0.7
    found = {}
    for name, vertices in _TUBES.items():
        rows = [(z * h, y * d, x, r) for z, y, x, r in vertices]
        if name == "aorta":
            rows += [
                (z * h, float(spine_y(p, np.array([z * h], np.float32))[0]) - gap, x, r) for z, gap, x, r in _DESCENDING
            ]
        table = np.array(rows, np.float64)
        found[name] = (table[:, :3], table[:, 3] * (1.0 if name == "oesophagus" else size))
    return found


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
        if name not in _SMALL:
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
