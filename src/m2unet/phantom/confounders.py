"""Findings that have nothing to do with severity and occur in both classes.

Dependent atelectasis, emphysema, nodules and old apical scars belong to the patient; how deep the lungs are breathed
in (dependent atelectasis again) and breathing motion belong to the scan. Their probabilities are the same whatever the
label.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from m2unet.phantom.grid import Grid, Tissues
from m2unet.phantom.lesions import Points, survey
from m2unet.phantom.smooth import SmoothField

FloatArray = NDArray[np.float32]
Triple = tuple[float, float, float]

PROBABILITY = {"atelectasis": 0.5, "emphysema": 0.25, "nodules": 0.35, "scars": 0.3, "motion": 0.25}
"""Share of patients (of scans, for motion) that have each."""


@dataclass(frozen=True)
class Confounders:
    """What a patient or scan has besides pneumonia; 0 means absent.

    Attributes:
        atelectasis: strength 0-1 of the dependent band at the back.
        emphysema: share 0-0.4 of the upper lung turned into air.
        nodules: number of nodules.
        scars: number of apical scars.
        motion: strength 0-1 of breathing motion.
    """

    atelectasis: float = 0.0
    emphysema: float = 0.0
    nodules: int = 0
    scars: int = 0
    motion: float = 0.0

    def with_scan(self, rng: np.random.Generator) -> Confounders:
        """Add what varies from scan to scan."""
        moving, strength, breath = rng.random(), rng.uniform(0.3, 1.0), rng.uniform(0.5, 1.0)
        return replace(
            self,
            motion=float(strength) if moving < PROBABILITY["motion"] else 0.0,
            atelectasis=self.atelectasis * float(breath),
        )


def draw_confounders(rng: np.random.Generator) -> Confounders:
    """Draw a patient's confounders; nothing about the disease is asked."""
    present = rng.random(4)
    strengths = rng.random(2)
    nodules, scars = 1 + int(rng.poisson(1.5)), 1 + int(rng.poisson(0.8))
    return Confounders(
        atelectasis=float(0.3 + 0.7 * strengths[0]) if present[0] < PROBABILITY["atelectasis"] else 0.0,
        emphysema=float(0.05 + 0.30 * strengths[1]) if present[1] < PROBABILITY["emphysema"] else 0.0,
        nodules=nodules if present[2] < PROBABILITY["nodules"] else 0,
        scars=scars if present[3] < PROBABILITY["scars"] else 0,
    )


@dataclass(frozen=True)
class Spot:
    """A nodule or scar: an ellipsoid with a soft or ragged margin; ``hu`` is its density."""

    centre_mm: Triple
    radius_mm: Triple
    hu: float
    ragged: float


@dataclass(frozen=True)
class ConfounderModel:
    """A patient's confounders placed in the patient's lungs.

    Attributes:
        spots: nodules and scars.
        bullae: noise field whose high values are emphysema.
        ragged: noise field of margins.
        back_mm: y of the backmost lung.
        base_mm: z of the lowest lung.
        height_mm: height of the lungs.
    """

    spots: tuple[Spot, ...]
    bullae: SmoothField
    ragged: SmoothField
    back_mm: float
    base_mm: float
    height_mm: float

    def apply(self, hu: FloatArray, tissues: Tissues, grid: Grid, strengths: Confounders) -> None:
        """Draw the confounders into ``hu`` (float32 ``[z, y, x]``) in place, motion excepted."""
        if strengths.emphysema > 0 or strengths.atelectasis > 0:
            fields = {"ragged": self.ragged} | ({"bullae": self.bullae} if strengths.emphysema > 0 else {})
            lungs = survey(tissues, grid, fields)
            selected = lungs.points((lungs.lobes >= 1) & (lungs.lobes <= 5)) if lungs is not None else None
            if lungs is not None and selected is not None:
                at, points = selected
                part = hu[lungs.box].ravel()
                part[at] = self._diffuse(part[at], points, strengths)
                hu[lungs.box] = part.reshape(lungs.lobes.shape)
        for spot in self.spots:
            _draw_spot(spot, self.ragged, hu, tissues, grid)

    def _diffuse(self, hu: FloatArray, points: Points, strengths: Confounders) -> FloatArray:
        if strengths.emphysema > 0:
            height = np.clip((points.z - self.base_mm) / self.height_mm, 0.0, 1.0)
            # the threshold falls towards the apex: centrilobular emphysema prefers the upper lung
            excess = points.noise["bullae"] - (1.9 - 3.2 * strengths.emphysema - 1.1 * (height - 0.5))
            share = np.clip(excess * 2.0, 0.0, 1.0) * (hu < -650)
            hu = hu + share * (-975.0 - hu)
        if strengths.atelectasis > 0:
            depth = np.maximum(points.pleura, 0.0) * (1.0 + 0.22 * points.noise["ragged"])
            behind = np.clip(1.0 - (self.back_mm - points.y) / 55.0, 0.0, 1.0)
            low = np.clip(1.25 - (points.z - self.base_mm) / self.height_mm, 0.25, 1.0)
            rise = strengths.atelectasis * behind * low
            hu = hu + (420.0 * rise * np.exp(-np.square(depth / np.float32(6.0))) + 70.0 * rise) * (hu < -300)
        return hu.astype(np.float32)


def place_confounders(
    strengths: Confounders, tissues: Tissues, grid: Grid, rng: np.random.Generator
) -> ConfounderModel:
    """Place a patient's confounders in the healthy anatomy drawn on a coarse grid.

    Args:
        strengths: what the patient has.
        tissues: the anatomy on a coarse grid that covers the lungs.
        grid: that grid.
        rng: the patient's own source of randomness.
    """
    axes = grid.axes()
    low = tuple(float(axis[0]) for axis in axes)
    high = tuple(float(axis[-1]) for axis in axes)
    corners = ((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    bullae, ragged = SmoothField(rng, *corners, 3.5), SmoothField(rng, *corners, 5.0)
    k, j, i = np.nonzero((tissues.lobes >= 1) & (tissues.lobes <= 5) & (tissues.pleura_mm > 1.0))
    z, y, x = axes[0][k], axes[1][j], axes[2][i]
    base, top = (float(z.min()), float(z.max())) if z.size else (low[0], high[0])
    spots: list[Spot] = []
    if z.size:
        apical = np.flatnonzero(z > base + 0.78 * (top - base))
        for _ in range(strengths.nodules):
            spots.append(_nodule((z, y, x), rng))
        for _ in range(strengths.scars if apical.size else 0):
            spots.append(_scar((z[apical], y[apical], x[apical]), rng))
    back = float(y.max()) if y.size else high[1]
    return ConfounderModel(tuple(spots), bullae, ragged, back, base, max(top - base, 1.0))


def _nodule(lungs: tuple[FloatArray, FloatArray, FloatArray], rng: np.random.Generator) -> Spot:
    centre = _pick(lungs, rng)
    radius = float(np.clip(np.exp(rng.normal(1.1, 0.45)), 1.5, 9.0))
    hu = float(rng.choice([rng.uniform(0, 60), rng.uniform(200, 700), rng.uniform(-650, -450)], p=[0.55, 0.25, 0.2]))
    return Spot(centre, (radius, radius, radius), hu, ragged=0.25)


def _scar(apex: tuple[FloatArray, FloatArray, FloatArray], rng: np.random.Generator) -> Spot:
    radius = rng.uniform((3.0, 2.0, 5.0), (8.0, 5.0, 14.0))
    return Spot(
        _pick(apex, rng), (float(radius[0]), float(radius[1]), float(radius[2])), float(rng.uniform(-250, 150)), 0.9
    )


def _pick(points: tuple[FloatArray, FloatArray, FloatArray], rng: np.random.Generator) -> Triple:
    at = int(rng.integers(len(points[0])))
    return float(points[0][at]), float(points[1][at]), float(points[2][at])


def _draw_spot(spot: Spot, ragged: SmoothField, hu: FloatArray, tissues: Tissues, grid: Grid) -> None:
    reach = 2.2 if spot.ragged > 0.5 else 1.6
    box, axes = [], []
    for axis, centre, radius, step in zip(grid.axes(), spot.centre_mm, spot.radius_mm, grid.spacing_mm, strict=True):
        near = np.flatnonzero(np.abs(axis - centre) <= reach * radius + step)
        if near.size == 0:
            return
        box.append(slice(int(near[0]), int(near[-1]) + 1))
        axes.append((axis[box[-1]] - centre, radius, step))
    part = (box[0], box[1], box[2])
    (z, rz, sz), (y, ry, sy), (x, rx, sx) = axes
    d = np.sqrt(np.square(z / rz)[:, None, None] + np.square(y / ry)[:, None] + np.square(x / rx))
    d = d * np.exp(0.35 * spot.ragged * ragged.on(*(axis[p] for axis, p in zip(grid.axes(), part, strict=True))))
    soft = max(0.5, 0.5 * (sz * sy * sx) ** (1 / 3)) / min(spot.radius_mm)
    share = np.clip((1.0 - d) / (2 * soft) + 0.5, 0.0, 1.0)
    inside = (tissues.lobes[part] >= 1) & (tissues.lobes[part] <= 5)
    target = hu[part]
    target += (share * inside * np.maximum(spot.hu - target, 0.0)).astype(np.float32)


def breathe(hu: FloatArray, grid: Grid, strength: float, base_mm: float, height_mm: float) -> None:
    """Double the contours near the diaphragm, as when the patient breathes during the scan; in place.

    Args:
        hu: float32 ``[z, y, x]``.
        grid: its grid.
        strength: 0-1.
        base_mm: z of the lowest lung.
        height_mm: height of the lungs.
    """
    shift = max(1, round(4.0 * strength / grid.spacing_mm[1]))
    for index, z in enumerate(grid.axes()[0]):
        share = 0.5 * strength * float(np.clip(1.1 - (z - base_mm) / height_mm, 0.0, 1.0))
        if share > 0.02:
            moved = hu[index].copy()
            moved[shift:] = hu[index, :-shift]
            hu[index] += np.float32(share) * (moved - hu[index])
