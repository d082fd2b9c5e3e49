"""Small tools for implicit shapes: smooth profiles, soft unions, distances.

A *field* is a float32 array over points, in mm, positive inside the shape and close to the distance from its surface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from m2unet.phantom.grid import FloatArray, Grid

if TYPE_CHECKING:
    from scipy.interpolate import PchipInterpolator


@dataclass(frozen=True)
class Points:
    """Where fields are evaluated: patient coordinates in mm, broadcastable to ``[z, y, x]``.

    Attributes:
        z, y, x: in the upright body: rotation and scoliosis undone.
        inner_z: height before breathing out moved the inner organs; equals ``z`` at full breath.
        spacing_mm: of the grid the points lie on, ``(z, y, x)``.
    """

    z: FloatArray
    y: FloatArray
    x: FloatArray
    inner_z: FloatArray
    spacing_mm: tuple[float, float, float]


def profile(knots: Sequence[float], values: Sequence[float], at: NDArray[np.floating]) -> FloatArray:
    """A smooth curve through a few knots without overshoot, held constant beyond its ends."""
    curve = _curve(tuple(knots), tuple(values))
    return np.asarray(curve(np.clip(at, knots[0], knots[-1])), np.float32)


@lru_cache(maxsize=64)
def _curve(knots: tuple[float, ...], values: tuple[float, ...]) -> PchipInterpolator:
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator(np.asarray(knots, float), np.asarray(values, float))


def soft_max(first: FloatArray, second: FloatArray, blend_mm: float) -> FloatArray:
    """Union of two fields whose joint is rounded over ``blend_mm``."""
    h = np.asarray(first - second, np.float32)
    np.abs(h, out=h)
    h *= np.float32(-1 / blend_mm)
    h += 1
    np.maximum(h, 0, out=h)
    h *= h
    h *= np.float32(blend_mm / 4)
    h += np.maximum(first, second)
    return h


def soft_min(first: FloatArray, second: FloatArray, blend_mm: float) -> FloatArray:
    """Intersection of two fields whose edge is rounded over ``blend_mm``."""
    return -soft_max(-first, -second, blend_mm)


def ellipsoid(
    points: Points, centre: tuple[float, float, float], radii: tuple[float, float, float], *, inner: bool = True
) -> FloatArray:
    """Field of an upright ellipsoid; ``centre`` and ``radii`` are ``(z, y, x)``."""
    z = points.inner_z if inner else points.z
    q = ((z - centre[0]) / radii[0]) ** 2 + ((points.y - centre[1]) / radii[1]) ** 2
    q = np.sqrt(q + ((points.x - centre[2]) / radii[2]) ** 2)
    return np.asarray((1 - q) * np.float32(min(radii)), np.float32)


FAR_OUTSIDE_MM = -60.0
"""Value of a tube's field far from it."""


def tube(points: Points, path: NDArray[np.floating], radii: NDArray[np.floating] | float) -> FloatArray:
    """Field of a tube along a polyline ``[n, 3]`` in ``(z, y, x)``, radius one for all or one a vertex.

    Right within 35 mm of each straight piece; ``FAR_OUTSIDE_MM`` beyond.
    """
    radius = np.broadcast_to(np.asarray(radii, np.float32), (len(path),))
    shape = np.broadcast_shapes(points.z.shape, points.y.shape, points.x.shape)
    field = np.full(shape, FAR_OUTSIDE_MM, np.float32)
    for start, end, r0, r1 in zip(path[:-1], path[1:], radius[:-1], radius[1:], strict=True):
        reach = max(r0, r1) + 35
        box = _near(points, np.minimum(start, end) - reach, np.maximum(start, end) + reach)
        if box is None:
            continue
        z, y, x = (_part(a, box) for a in (points.inner_z, points.y, points.x))
        step = (end - start).astype(np.float32)
        length = float(step @ step) or 1.0
        dz, dy, dx = z - np.float32(start[0]), y - np.float32(start[1]), x - np.float32(start[2])
        t = np.clip((dz * step[0] + dy * step[1] + dx * step[2]) / np.float32(length), 0, 1)
        square = (dz - t * step[0]) ** 2 + (dy - t * step[1]) ** 2 + (dx - t * step[2]) ** 2
        part = field[box]
        np.maximum(part, r0 + t * (r1 - r0) - np.sqrt(square), out=part)
    return field


def _part(values: FloatArray, box: tuple[slice, slice, slice]) -> FloatArray:
    """A box of a broadcastable array."""
    return values[tuple(slice(None) if n == 1 else s for n, s in zip(values.shape, box, strict=True))]


def _near(points: Points, low: NDArray[np.floating], high: NDArray[np.floating]) -> tuple[slice, slice, slice] | None:
    """The box of array indices within which points lie between two corners ``(z, y, x)``, None if there are none."""
    found = []
    for axis, values in enumerate((points.inner_z, points.y, points.x)):
        others = tuple(a for a in range(3) if a != axis)
        # Other axes move a coordinate by little and steadily, so their ends tell its range.
        ends = values[
            tuple(slice(None) if a == axis else slice(None, None, max(n - 1, 1)) for a, n in enumerate(values.shape))
        ]
        if points.x.ndim == 3 and points.x.shape[0] > 1 and axis == 2:
            ends = values[:, :: max(values.shape[1] - 1, 1)]
        inside = np.flatnonzero((ends.max(axis=others) >= low[axis]) & (ends.min(axis=others) <= high[axis]))
        if not len(inside):
            return None
        found.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return found[0], found[1], found[2]


def as_distance(level: FloatArray, spacing_mm: tuple[float, float, float], shortest_mm: float = 12.0) -> FloatArray:
    """Turn an implicit function (0 on the surface, positive inside) into an approximate distance in mm.

    Divides by the gradient's length, which is taken as that of a shape no thinner than ``shortest_mm``.
    """
    square = np.zeros_like(level)
    for axis in range(3):
        if level.shape[axis] > 1:
            square += np.gradient(level, spacing_mm[axis], axis=axis) ** 2
    return np.asarray(level / np.clip(np.sqrt(square), 1 / 400, 1 / shortest_mm), np.float32)


def coarse_grid(grid: Grid, step_mm: float) -> Grid:
    """A grid over the same box, first and last voxel centres kept, with steps up to ``step_mm`` or the grid's own."""
    counts, steps = [], []
    for count, spacing in zip(grid.shape, grid.spacing_mm, strict=True):
        length = (count - 1) * spacing
        coarse = count if spacing >= step_mm else min(count, int(np.ceil(length / step_mm)) + 1)
        counts.append(coarse)
        steps.append(length / (coarse - 1) if coarse > 1 else spacing)
    return Grid((counts[0], counts[1], counts[2]), (steps[0], steps[1], steps[2]), grid.origin_mm)
