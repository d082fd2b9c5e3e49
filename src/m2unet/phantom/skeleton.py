"""Bones on the fine grid: ribs in the shell around the lungs, spine, breast bone, shoulder blades, collar bones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m2unet.phantom.grid import FloatArray
from m2unet.phantom.mediastinum import spine_y
from m2unet.phantom.parameters import AnatomyParameters
from m2unet.phantom.shape import Points
from m2unet.phantom.thorax import arm_bones
from m2unet.phantom.tubes import Tubes

RIB_SHELL_MM = (-12.5, 0.0)
"""Values of the cavity's field between which ribs lie."""

Range = tuple[float, float]


def rib_field(
    p: AnatomyParameters, z: FloatArray, y: FloatArray, x: FloatArray, wall: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Field of the ribs and share of cartilage at points (1-D arrays) with the given value of the cavity's field."""
    h, d, w = p.lung_height_mm, p.half_depth_mm, p.half_width_mm
    pitch = np.float32(h / 9.2)
    # From the spine round to the front a rib falls by two fifths of the lungs' height, then rises to the breast bone.
    turn = np.arctan2(np.abs(x) / np.float32(w), (y - np.float32(0.12 * d)) / np.float32(d)) / np.float32(np.pi)
    drop = np.float32(0.42 * h) * (np.minimum(turn, 0.74) - 0.8 * np.clip(turn - 0.74, 0, None))
    count = (z + drop) / pitch
    across = (count - np.floor(count) - np.float32(0.5)) * pitch * np.float32(0.84)
    field = (1 - np.sqrt(((wall + np.float32(5.5)) / 4.2) ** 2 + (across / 6.6) ** 2)) * np.float32(4.2)
    lowest = np.float32(h) * (-0.30 + 0.55 * np.clip(turn - 0.45, 0, 0.55))
    field = np.minimum(field, (z - lowest) * 0.3)
    field = np.minimum(field, (np.abs(x) - np.where(y > 0, np.float32(26.0), np.float32(14.0))) * 0.5)
    cartilage = np.clip((turn - 0.72) * 25, 0, 1)
    return np.asarray(field, np.float32), np.asarray(cartilage, np.float32)


def blade_box_mm(p: AnatomyParameters, side: int) -> tuple[Range, Range, Range]:
    """Ranges of z, y and x that hold one shoulder blade."""
    h, d, w = p.lung_height_mm, p.half_depth_mm, p.half_width_mm
    near, far = 0.42 * w, 1.15 * w + 22
    return (0.40 * h, 1.03 * h), (0.05 * d, 1.1 * d + 24), (near, far) if side > 0 else (-far, -near)


def blade_field(p: AnatomyParameters, points: Points) -> FloatArray:
    """Field of the shoulder blades: thin bent plates that lean on the back of the upper ribs, with a ridge."""
    h, d, w = p.lung_height_mm, p.half_depth_mm, p.half_width_mm
    inner, outer = (0.50 * w, 1.0 * d + 10), (1.04 * w + 12, 0.34 * d)
    long = np.hypot(outer[0] - inner[0], outer[1] - inner[1])
    along_x, along_y = (outer[0] - inner[0]) / long, (outer[1] - inner[1]) / long
    ax = np.abs(points.x)
    run = (ax - inner[0]) * along_x + (points.y - inner[1]) * along_y
    lift = np.float32(0.10) * (points.z - np.float32(0.75 * h))
    off = (
        (ax - inner[0]) * along_y
        - (points.y - inner[1]) * along_x
        - lift
        + np.float32(7) * np.sin(run * np.float32(np.pi / long))
    )
    thick = np.float32(2.2) + np.float32(4.5) * np.clip(run / long - 0.72, 0, 0.3) / np.float32(0.3)
    low = points.z - np.float32(0.44 * h) - np.float32(0.9) * np.clip(run - 20, 0, None)
    field = np.minimum(thick - np.abs(off), np.minimum(run, long - run))
    field = np.minimum(field, np.minimum(low, np.float32(0.99 * h) - points.z) * np.float32(0.7))
    ridge = np.minimum(
        np.float32(3.2) - np.abs(points.z - np.float32(0.86 * h) - 0.2 * run), np.minimum(-off, off + 22)
    )
    ridge = np.minimum(ridge, np.minimum(run - 4, long + 10 - run))
    return np.asarray(np.maximum(field, ridge), np.float32)


def spine_box_mm(p: AnatomyParameters) -> tuple[tuple[float, float], tuple[float, float]]:
    """Range of y and of x (mm, upright body) that holds the spine."""
    return (-0.05 * p.half_depth_mm - 25, 0.6 * p.half_depth_mm + 75), (-48.0, 48.0)


def spine_fields(p: AnatomyParameters, points: Points) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fields of the vertebrae, of the discs and of the spinal canal."""
    pitch = np.float32(p.lung_height_mm / 11.5)
    size = np.float32((p.half_width_mm / 139) ** 0.5) * np.where(
        points.z > p.lung_height_mm, np.float32(0.82), np.float32(1.0)
    )
    back, x = (points.y - spine_y(p, points.z)) / size, np.abs(points.x) / size
    turn = points.z / pitch
    level = (turn - np.floor(turn) - np.float32(0.5)) * pitch
    ring = np.sqrt((x / 19) ** 2 + (back / 16) ** 2)
    column = (1 - ring - 0.02 * np.clip(9 - np.abs(level), 0, 9) / 9) * np.float32(16)
    body = np.minimum(column, pitch / 2 - np.float32(2.4) - np.abs(level))
    disc = np.minimum(column - 0.5, np.float32(2.4) - (pitch / 2 - np.abs(level)))
    canal = np.float32(8.5) - np.sqrt((x / 1.15) ** 2 + (back - 24) ** 2)
    arch = np.minimum(np.float32(13.5) - np.sqrt((x / 1.15) ** 2 + (back - 24) ** 2), np.float32(8.5) - np.abs(level))
    across = np.minimum(
        np.float32(5.0) - np.abs(back - 27 - 0.15 * x), np.minimum(np.float32(5.5) - np.abs(level - 2), 33 - x)
    )
    tip = np.float32(min(58.0, 0.42 * p.half_depth_mm + 0.6 * p.muscle_mm))
    sting = np.minimum(np.float32(3.4) - x, np.minimum(np.float32(7) - np.abs(level + 0.45 * (back - 42)), tip - back))
    sting = np.minimum(sting, back - 30)
    bone = np.maximum(np.maximum(body, arch), np.maximum(across, sting))
    bone = np.minimum(bone, -canal)
    shape = np.broadcast_shapes(points.z.shape, points.y.shape, points.x.shape)
    return tuple(np.asarray(np.broadcast_to(f, shape), np.float32) for f in (bone, disc, canal))  # type: ignore[return-value]


def sternum_field(p: AnatomyParameters, points: Points) -> FloatArray:
    """Field of the breast bone before the cavity."""
    h = p.lung_height_mm
    z = points.z / np.float32(h)
    half = np.interp(z, (0.30, 0.40, 0.62, 0.70, 0.78, 0.86), (9, 16, 15, 17, 25, 27)).astype(np.float32)
    front = np.interp(z, (0.30, 0.62, 0.90), (-0.96, -0.92, -0.50)).astype(np.float32) * np.float32(p.half_depth_mm) - 7
    field = (1 - np.sqrt((points.x / half) ** 2 + ((points.y - front) / 7.0) ** 2)) * np.float32(7.0)
    return np.asarray(np.minimum(field, np.minimum(z - 0.30, np.float32(0.87) - z) * np.float32(h)), np.float32)


def sternum_box_mm(p: AnatomyParameters) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
    """Ranges of z, y and x that hold the breast bone."""
    d, h = p.half_depth_mm, p.lung_height_mm
    return (0.28 * h, 0.89 * h), (-0.96 * d - 16, -0.5 * d + 4), (-30.0, 30.0)


def long_bones(p: AnatomyParameters) -> Tubes:
    """Collar bones and upper arms."""
    h, w, d = p.lung_height_mm, p.half_width_mm, p.half_depth_mm
    rise = 26.0 if p.arms_up else 8.0
    paths: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = list(arm_bones(p))
    for side in (-1, 1):
        path = np.array(
            [(0.88 * h, -0.46 * d, side * 26), (0.96 * h, -0.26 * d, side * 0.45 * w), (h + rise, 4, side * (w + 22))]
        )
        paths.append((path, np.array([8.0, 6.0, 7.0])))
    start = np.concatenate([path[:-1] for path, _ in paths])
    end = np.concatenate([path[1:] for path, _ in paths])
    radius = np.concatenate([np.stack([r[:-1], r[1:]], 1) for _, r in paths])
    return Tubes(start.astype(np.float32), end.astype(np.float32), radius.astype(np.float32))
