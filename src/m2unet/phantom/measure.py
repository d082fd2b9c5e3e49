"""Measures of a lobe map's geometry, the same for phantoms and for real maps.

All functions take a ``[z, y, x]`` map of lobe codes (1-5, 6 airway, z towards the head, y to the back, x to the left)
and its spacing in mm. Lengths "by height" are shares of the lungs' height; heights count from the lowest lung slice, x
from the middle of both lungs' width, y from the middle of their depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBES
from m2unet.errors import M2UNetError
from m2unet.phantom.grid import Triple

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Heights of the slice-area profile, shares of lung height from the base."""
OBLIQUE_TERMS = ("level", "slope", "bend", "tilt", "bow", "twist")
MINOR_TERMS = ("level", "tilt", "bow", "slope", "bend")

LobeMap = NDArray[np.integer]


@dataclass(frozen=True)
class LungBox:
    """The box around both lungs: where heights, x and y count from, and its size, in mm."""

    base_mm: float
    middle_y_mm: float
    middle_x_mm: float
    height_mm: float
    depth_mm: float
    width_mm: float


def lung_box(lobes: LobeMap, spacing_mm: Triple) -> LungBox:
    """Measure the box around codes 1-5, voxel faces included.

    Raises:
        M2UNetError: if the map holds no lobe.
    """
    lungs = (lobes >= 1) & (lobes <= 5)
    if not lungs.any():
        raise M2UNetError("A lobe map without lobes cannot be measured", found=f"codes {np.unique(lobes)[:10]}")
    ends = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        held = np.flatnonzero(lungs.any(axis=others))
        ends.append(((held[0] - 0.5) * spacing_mm[axis], (held[-1] + 0.5) * spacing_mm[axis]))
    (z0, z1), (y0, y1), (x0, x1) = ends
    return LungBox(z0, (y0 + y1) / 2, (x0 + x1) / 2, z1 - z0, y1 - y0, x1 - x0)


def volumes_ml(lobes: LobeMap, spacing_mm: Triple) -> dict[str, float]:
    """Volume of each lobe by its abbreviation."""
    counts = np.bincount(np.asarray(lobes, np.int64).ravel(), minlength=7)
    voxel = float(np.prod(spacing_mm)) / 1000
    return {lobe.abbreviation: float(counts[lobe.code]) * voxel for lobe in LOBES}


def area_profile(lobes: LobeMap, spacing_mm: Triple, codes: tuple[int, ...] = (1, 2, 3, 4, 5)) -> NDArray[np.float64]:
    """Slice areas of some lobes at :data:`LEVELS`, by the squared height of both lungs."""
    box = lung_box(lobes, spacing_mm)
    areas = np.isin(lobes, codes).sum((1, 2)) * spacing_mm[1] * spacing_mm[2]
    heights = (np.arange(len(areas)) * spacing_mm[0] - box.base_mm) / box.height_mm
    return np.asarray(np.interp(LEVELS, heights, areas) / box.height_mm**2, np.float64)


def _interface(
    lobes: LobeMap, above: tuple[int, ...], below: tuple[int, ...], axes: tuple[int, ...]
) -> NDArray[np.float64]:
    """Midpoints (voxel units) of neighbours along ``axes`` of which one is in ``above``, the other in ``below``."""
    first, second = np.isin(lobes, above), np.isin(lobes, below)
    found = []
    for axis in axes:
        ahead = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        behind = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        at = np.argwhere((first[ahead] & second[behind]) | (second[ahead] & first[behind])).astype(float)
        at[:, axis] += 0.5
        found.append(at)
    return np.concatenate(found)


def _scaled(places: NDArray[np.float64], lobes: LobeMap, spacing_mm: Triple, side: int) -> NDArray[np.float64]:
    """Voxel places as shares of lung height, x counted outwards on the given side."""
    box = lung_box(lobes, spacing_mm)
    zero = np.array([box.base_mm, box.middle_y_mm, box.middle_x_mm])
    return np.asarray((places * np.array(spacing_mm) - zero) / box.height_mm * np.array([1, 1, side]))


@dataclass(frozen=True)
class FissureFit:
    """A quadratic surface through a fissure.

    Attributes:
        terms: its coefficients by name, as the parameter classes of :mod:`m2unet.phantom.parameters` define them.
        angle_degrees: angle from the horizontal in the sagittal plane through the middle of the lung.
        roughness_mm: standard deviation of the fissure around the surface.
        points: number of places it was fitted to.
    """

    terms: dict[str, float]
    angle_degrees: float
    roughness_mm: float
    points: int


def fit_oblique(lobes: LobeMap, spacing_mm: Triple, side: str) -> FissureFit | None:
    """Fit a major fissure; None where the lobes do not touch. ``side`` is "right" or "left"."""
    upper, lower, sign = ((1, 2), (3,), -1) if side == "right" else ((4,), (5,), 1)
    at = _scaled(_interface(lobes, upper, lower, (0, 1)), lobes, spacing_mm, sign)
    if len(at) < 20:
        return None
    z, y, s = at[:, 0], at[:, 1], at[:, 2] - 0.28
    t, level = (z + y) / 2**0.5 - 0.35, (z - y) / 2**0.5
    design = np.stack([np.ones_like(t), t, t * t, s, s * s, s * t], 1)
    terms, rest = _least_squares(design, level)
    angle = 45 + float(np.degrees(np.arctan(terms[1])))
    return FissureFit(
        dict(zip(OBLIQUE_TERMS, terms, strict=True)), angle, rest * lung_box(lobes, spacing_mm).height_mm, len(at)
    )


def fit_minor(lobes: LobeMap, spacing_mm: Triple) -> FissureFit | None:
    """Fit the minor fissure; None where upper and middle lobe do not touch."""
    at = _scaled(_interface(lobes, (1,), (2,), (0,)), lobes, spacing_mm, -1)
    if len(at) < 20:
        return None
    s, f = at[:, 2] - 0.28, at[:, 1] + 0.15
    terms, rest = _least_squares(np.stack([np.ones_like(s), s, s * s, f, f * f], 1), at[:, 0])
    angle = float(np.degrees(np.arctan(terms[3])))
    return FissureFit(
        dict(zip(MINOR_TERMS, terms, strict=True)), angle, rest * lung_box(lobes, spacing_mm).height_mm, len(at)
    )


def _least_squares(design: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[list[float], float]:
    terms, *_ = np.linalg.lstsq(design, target, rcond=None)
    return [float(v) for v in terms], float((target - design @ terms).std())


def base_heights(lobes: LobeMap, spacing_mm: Triple, codes: tuple[int, ...]) -> NDArray[np.float64]:
    """Height of the lung's lower surface over each ``(y, x)`` by lung height, NaN where there is no lung."""
    box = lung_box(lobes, spacing_mm)
    lung = np.isin(lobes, codes)
    lowest = (np.argmax(lung, axis=0) - 0.5) * spacing_mm[0] - box.base_mm
    return np.where(lung.any(0), lowest / box.height_mm, np.nan)


def _dome(lobes: LobeMap, spacing_mm: Triple, side: str) -> float:
    """Height of the diaphragm's top: 80th percentile of the base over the outer middle of the lung's outline."""
    codes, sign = ((1, 2, 3), -1) if side == "right" else ((4, 5), 1)
    box = lung_box(lobes, spacing_mm)
    base = base_heights(lobes, spacing_mm, codes)
    y = (np.arange(lobes.shape[1]) * spacing_mm[1] - box.middle_y_mm) / (box.depth_mm / 2)
    x = sign * (np.arange(lobes.shape[2]) * spacing_mm[2] - box.middle_x_mm) / (box.width_mm / 2)
    middle = (np.abs(y)[:, None] < 0.5) & ((x > 0.4) & (x < 0.8))[None]
    return float(np.nanpercentile(base[middle], 80))


def _spans(lobes: LobeMap, spacing_mm: Triple) -> dict[str, float]:
    """Width and depth of both lungs together at some heights, as shares of the greatest."""
    box = lung_box(lobes, spacing_mm)
    lungs = (lobes >= 1) & (lobes <= 5)
    found = {}
    for level in (0.2, 0.5, 0.75, 0.9):
        plane = lungs[round((box.base_mm + level * box.height_mm) / spacing_mm[0])]
        for name, axis, whole, step in (
            ("width", 0, box.width_mm, spacing_mm[2]),
            ("depth", 1, box.depth_mm, spacing_mm[1]),
        ):
            held = np.flatnonzero(plane.any(axis=axis))
            found[f"{name}_at_{round(100 * level)}"] = (
                float((held[-1] - held[0] + 1) * step / whole) if len(held) else 0.0
            )
    return found


def carina_height(lobes: LobeMap, spacing_mm: Triple) -> float | None:
    """Height at which the windpipe parts, by lung height; None if the map holds no windpipe."""
    from scipy.ndimage import label

    box = lung_box(lobes, spacing_mm)
    airway = lobes == 6
    x = (np.arange(lobes.shape[2]) * spacing_mm[2] - box.middle_x_mm) / box.width_mm
    for k in range(lobes.shape[0] - 1, -1, -1):
        height = (k * spacing_mm[0] - box.base_mm) / box.height_mm
        if height > 0.85 or height < 0.3:
            continue
        parts, count = label(airway[k] & (np.abs(x) < 0.16)[None])
        large = np.sum(np.bincount(parts.ravel())[1:] * spacing_mm[1] * spacing_mm[2] > 45) if count else 0
        if large >= 2:
            return float(height)
    return None


def measure_lobes(lobes: LobeMap, spacing_mm: Triple) -> dict[str, float]:
    """All named measures of one map; a measure that cannot be had is NaN.

    Raises:
        M2UNetError: if the map holds no lobe.
    """
    box = lung_box(lobes, spacing_mm)
    volumes = volumes_ml(lobes, spacing_mm)
    total = sum(volumes.values())
    found = {"volume_ml": total, "height_mm": box.height_mm, "width_mm": box.width_mm, "depth_mm": box.depth_mm}
    found |= {f"share_{name}_percent": 100 * ml / total for name, ml in volumes.items()}
    for side, codes in (("right", (1, 2, 3)), ("left", (4, 5))):
        areas = area_profile(lobes, spacing_mm, codes)
        found |= {f"area_{side}_at_{round(100 * level)}": float(a) for level, a in zip(LEVELS, areas, strict=True)}
        found[f"dome_{side}"] = _dome(lobes, spacing_mm, side)
    found |= _spans(lobes, spacing_mm)
    fits = {side: fit_oblique(lobes, spacing_mm, side) for side in ("right", "left")} | {
        "minor": fit_minor(lobes, spacing_mm)
    }
    for name, fit in fits.items():
        label = "minor" if name == "minor" else f"oblique_{name}"
        terms = MINOR_TERMS if name == "minor" else OBLIQUE_TERMS
        found |= {f"{label}_{term}": fit.terms[term] if fit else float("nan") for term in terms}
        found[f"{label}_angle_degrees"] = fit.angle_degrees if fit else float("nan")
        found[f"{label}_roughness_mm"] = fit.roughness_mm if fit else float("nan")
    carina = carina_height(lobes, spacing_mm)
    found["carina"] = float("nan") if carina is None else carina
    return found
