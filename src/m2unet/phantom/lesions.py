"""Lesions of one patient as functions of patient coordinates, and how they change the Hounsfield units.

Every lobe has a set of seeds. A seed is a patch that clings to the pleura (or, seldom, lies centrally); its distance
function is warped by smooth noise, and the lobe's level is chosen on a coarse grid so that exactly the wanted share
of the lobe lies inside. A higher level grows the same patches until they run together, so the lesions of one
patient on different days are nested, and the level does not depend on the grid of the scan.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBE_CODES
from m2unet.phantom.disease import BAND, CONSOLIDATION, CRAZY_PAVING, GROUND_GLASS, Disease, DiseaseState
from m2unet.phantom.grid import Grid, Tissues
from m2unet.phantom.smooth import SmoothField

FloatArray = NDArray[np.float32]
Triple = tuple[float, float, float]

_WARP_LIMIT = 1.0  # |log| of the noise factor on a lesion's radius; bounds how far a lesion reaches
_FIELDS = {"broad": 22.0, "fine": 8.0, "core": 14.0, "grain": 2.6, "mesh": 4.2}  # lattice steps, mm
_PLACING = ("broad", "fine", "core")  # the fields that decide where lesions are


@dataclass(frozen=True)
class Lesion:
    """One patch of disease.

    Attributes:
        lobe: code of the lobe it lies in and does not leave.
        kind: lesion mask code of its ground: ground-glass, crazy paving or band.
        centre_mm: ``(z, y, x)`` in patient coordinates.
        radius_mm: half-axes ``(z, y, x)``; for patches only their proportions to other patches of the lobe count.
        depth_mm: scale of its thickness below the pleura, None for a central patch; for a band its distance from it.
        density: 0 faint to 1 dense.
        core: tendency to consolidate, 1 is usual.
    """

    lobe: int
    kind: int
    centre_mm: Triple
    radius_mm: Triple
    depth_mm: float | None
    density: float
    core: float


@dataclass
class Points:
    """Voxels of one lobe as flat arrays: patient coordinates in mm, depth below the pleura, and noise fields."""

    z: FloatArray
    y: FloatArray
    x: FloatArray
    pleura: FloatArray
    noise: dict[str, FloatArray]


@dataclass
class LesionModel:
    """All lesions of a patient, before a day is chosen.

    Attributes:
        patches: ground-glass and crazy-paving patches with their consolidated cores.
        bands: bands, in the order in which they appear.
        fields: noise fields by name.
        coarse: coarse points of every lobe, on which levels are chosen.
    """

    patches: tuple[Lesion, ...]
    bands: tuple[Lesion, ...]
    fields: dict[str, SmoothField]
    coarse: dict[int, Points] = field(repr=False)

    def on_day(self, state: DiseaseState) -> DayLesions:
        """Fix the levels for a day's state."""
        levels: dict[int, tuple[float, float]] = {}
        for lobe, extent, dense in zip(LOBE_CODES, state.extents, state.dense, strict=True):
            points = self.coarse.get(lobe)
            patches = [patch for patch in self.patches if patch.lobe == lobe]
            if points is None or not patches or extent <= 0:
                continue
            ground, core, _ = _distance(patches, points)
            level = float(np.quantile(ground, extent))
            inside = ground < level
            if not inside.any():
                continue
            core_level = float(np.quantile(core[inside], min(1.0, dense / extent))) if dense > 0 else 0.0
            levels[lobe] = (level, core_level)
        shown = [band for band in self.bands if band.core < state.bands]
        return DayLesions(self, levels, tuple(shown))


@dataclass(frozen=True)
class DayLesions:
    """A patient's lesions on one day.

    Attributes:
        model: the patient's lesions.
        levels: for each diseased lobe the level of the ground and of the cores.
        bands: the bands present.
    """

    model: LesionModel
    levels: dict[int, tuple[float, float]]
    bands: tuple[Lesion, ...]

    def apply(self, hu: FloatArray, tissues: Tissues, grid: Grid) -> NDArray[np.uint8]:
        """Draw the lesions into ``hu`` in place.

        Args:
            hu: float32 ``[z, y, x]`` of the grid's shape.
            tissues: the healthy anatomy on the same grid.
            grid: the voxel grid.

        Returns:
            Lesion mask uint8 ``[z, y, x]``: 0 none, 1 ground-glass, 2 consolidation, 3 crazy paving, 4 band.
        """
        mask = np.zeros(grid.shape, dtype=np.uint8)
        present = sorted(set(self.levels) | {band.lobe for band in self.bands})
        lungs = survey(tissues, grid, self.model.fields) if present else None
        if lungs is None:
            return mask
        drawn, marked = hu[lungs.box].ravel(), np.zeros(lungs.lobes.size, dtype=np.uint8)
        for lobe in present:
            selected = lungs.points(lungs.lobes == lobe)
            if selected is not None:
                at, points = selected
                drawn[at], marked[at] = self._draw(lobe, points, drawn[at], grid)
        hu[lungs.box] = drawn.reshape(lungs.lobes.shape)
        mask[lungs.box] = marked.reshape(lungs.lobes.shape)
        return mask

    def _draw(self, lobe: int, points: Points, before: FloatArray, grid: Grid) -> tuple[FloatArray, NDArray[np.uint8]]:
        """HU and lesion codes of one lobe's points."""
        after, kinds = before, np.zeros(before.shape, dtype=np.uint8)
        if lobe in self.levels:
            patches = [patch for patch in self.model.patches if patch.lobe == lobe]
            after, kinds = _draw_patches(patches, self.levels[lobe], points, before, grid)
        for band in self.bands:
            if band.lobe == lobe:
                _draw_band(band, points, after, kinds, grid)
        return after, kinds


@dataclass(frozen=True)
class Survey:
    """The box of the lungs on a grid, with noise fields drawn on it once for all lobes.

    Attributes:
        box: slices ``(z, y, x)`` into the grid.
        lobes: uint8 lobe codes in the box.
        pleura: depth below the pleura in mm in the box.
        axes: coordinates of the box along z, y and x.
        noise: noise fields by name, float32 on the box.
    """

    box: tuple[slice, slice, slice]
    lobes: NDArray[np.uint8]
    pleura: FloatArray
    axes: tuple[FloatArray, FloatArray, FloatArray]
    noise: dict[str, FloatArray]

    def points(self, inside: NDArray[np.bool_]) -> tuple[NDArray[np.intp], Points] | None:
        """The voxels of a mask on the box, as a flat index into the box and as points; None if there are none."""
        at = np.flatnonzero(inside)
        if at.size == 0:
            return None
        _, rows, columns = inside.shape
        line, i = np.divmod(at.astype(np.int32), np.int32(columns))
        k, j = np.divmod(line, np.int32(rows))
        z, y, x = self.axes
        noise = {name: field.ravel()[at] for name, field in self.noise.items()}
        return at, Points(z[k], y[j], x[i], self.pleura.ravel()[at], noise)


def survey(tissues: Tissues, grid: Grid, fields: dict[str, SmoothField]) -> Survey | None:
    """Find the lungs on a grid and draw noise fields there; None if the grid misses them."""
    box = _bounding_box((tissues.lobes >= 1) & (tissues.lobes <= 5))
    if box is None:
        return None
    z, y, x = (axis[part] for axis, part in zip(grid.axes(), box, strict=True))
    noise = {name: np.ascontiguousarray(field.on(z, y, x)) for name, field in fields.items()}
    pleura = np.ascontiguousarray(tissues.pleura_mm[box])
    return Survey(box, np.ascontiguousarray(tissues.lobes[box]), pleura, (z, y, x), noise)


def make_lesions(disease: Disease, tissues: Tissues, grid: Grid, rng: np.random.Generator) -> LesionModel:
    """Draw a patient's lesions.

    Args:
        disease: extents and tendencies.
        tissues: the healthy anatomy on a coarse grid that covers the lungs (about 5 mm).
        grid: that grid.
        rng: source of randomness, the patient's own.
    """
    low = grid.origin_mm
    high = tuple(start + step * (n - 1) for start, step, n in zip(low, grid.spacing_mm, grid.shape, strict=True))
    fields = {name: SmoothField(rng, low, (high[0], high[1], high[2]), scale) for name, scale in _FIELDS.items()}
    placing = survey(tissues, grid, {name: field for name, field in fields.items() if name in _PLACING})
    coarse: dict[int, Points] = {}
    patches: list[Lesion] = []
    bands: list[Lesion] = []
    for lobe, extent in zip(LOBE_CODES, disease.peak.extents, strict=True):
        lobe_rng = np.random.default_rng(rng.integers(2**63))
        selected = placing.points(placing.lobes == lobe) if placing is not None else None
        if selected is None:
            continue
        coarse[lobe] = selected[1]
        if extent > 0:
            patches += _draw_seeds(disease, lobe, extent, coarse[lobe], lobe_rng)
        bands += _draw_bands(disease.peak.bands if extent > 0 else 0.0, lobe, coarse[lobe], lobe_rng)
    return LesionModel(tuple(patches), tuple(bands), fields, coarse)


# --- drawing seeds ---------------------------------------------------------------------------------------------------


def _draw_seeds(disease: Disease, lobe: int, extent: float, points: Points, rng: np.random.Generator) -> list[Lesion]:
    count = 2 + int(rng.poisson(2.0 + 7.0 * extent))
    return [_draw_seed(disease, lobe, points, rng) for _ in range(count)]


def _draw_seed(disease: Disease, lobe: int, points: Points, rng: np.random.Generator) -> Lesion:
    central = rng.random() < disease.central
    at = _choose(points, rng, depth_mm=35.0 if central else 5.0)
    size = float(np.exp(rng.normal(0.0, 0.45)))
    stretch = np.exp(rng.normal((0.25, 0.0, 0.0), 0.35))
    radius = 20.0 * size * stretch / np.cbrt(np.prod(stretch))
    return Lesion(
        lobe=lobe,
        kind=CRAZY_PAVING if rng.random() < disease.crazy else GROUND_GLASS,
        centre_mm=(float(points.z[at]), float(points.y[at]), float(points.x[at])),
        radius_mm=(float(radius[0]), float(radius[1]), float(radius[2])),
        depth_mm=None if central else float(radius.mean() * rng.uniform(0.28, 0.60)),
        density=float(rng.beta(2.0, 2.0)),
        core=float(np.exp(rng.normal(0.0, 0.6))),
    )


def _draw_bands(tendency: float, lobe: int, points: Points, rng: np.random.Generator) -> list[Lesion]:
    """Up to six candidate bands; ``core`` holds the day's tendency above which one appears."""
    drawn = []
    for rank in range(6):
        at = _choose(points, rng, depth_mm=8.0)
        radius = rng.uniform((8.0, 12.0, 12.0), (18.0, 40.0, 40.0))
        lesion = Lesion(
            lobe=lobe,
            kind=BAND,
            centre_mm=(float(points.z[at]), float(points.y[at]), float(points.x[at])),
            radius_mm=(float(radius[0]), float(radius[1]), float(radius[2])),
            depth_mm=float(rng.uniform(3.0, 11.0)),
            density=float(rng.uniform(0.3, 1.0)),
            core=float(rng.exponential(0.9)) + 0.35 * rank,
        )
        if tendency > 0:
            drawn.append(lesion)
    return drawn


def _choose(points: Points, rng: np.random.Generator, depth_mm: float) -> int:
    """A random voxel of the lobe, likelier near the pleura, at the side, in the back and low down."""
    side = np.abs(points.x - points.x[np.argmin(np.abs(points.x))]) / max(float(np.ptp(points.x)), 1.0)
    back = (points.y - points.y.min()) / max(float(np.ptp(points.y)), 1.0)
    low = (points.z.max() - points.z) / max(float(np.ptp(points.z)), 1.0)
    weight = np.exp(-np.abs(points.pleura) / depth_mm) * (0.10 + back**2) * (0.5 + low) * (0.25 + side)
    cumulative = np.cumsum(weight, dtype=np.float64)
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right").clip(0, len(weight) - 1))


# --- distances -------------------------------------------------------------------------------------------------------


def _warp(points: Points) -> FloatArray:
    """Twice the log of the factor by which noise moves a lesion's margin."""
    noise = 0.24 * points.noise["broad"] + 0.20 * points.noise["fine"]
    return (2.0 * np.clip(noise, -_WARP_LIMIT, _WARP_LIMIT)).astype(np.float32)


def _distance(
    patches: list[Lesion], points: Points, level: float = np.inf
) -> tuple[FloatArray, FloatArray, NDArray[np.uint8]]:
    """Warped squared distance from the nearest patch, the same for cores, and the index of that patch.

    Only distances below ``level`` are wanted: patches too far above or below the points are passed over.
    """
    bottom, top = float(points.z.min()), float(points.z.max())
    nearest = np.full(points.z.shape, np.inf, dtype=np.float32)
    owner = np.zeros(points.z.shape, dtype=np.uint8)
    pleura = np.maximum(points.pleura, 0.0)
    for index, patch in enumerate(patches):
        (cz, cy, cx), (rz, ry, rx) = patch.centre_mm, patch.radius_mm
        if (max(bottom - cz, cz - top, 0.0) / rz) ** 2 > level * np.exp(2 * _WARP_LIMIT):
            continue
        d = np.square((points.z - cz) * np.float32(1 / rz))
        d += np.square((points.y - cy) * np.float32(1 / ry))
        d += np.square((points.x - cx) * np.float32(1 / rx))
        if patch.depth_mm is not None:
            d += np.square(pleura * np.float32(1 / patch.depth_mm))
        closer = d < nearest
        owner[closer] = index
        np.minimum(nearest, d, out=nearest)
    nearest *= np.exp(_warp(points))
    tendency = np.array([patch.core for patch in patches], dtype=np.float32)[owner]
    # cores lie towards the pleura and only loosely in the middle of a patch, else every patch would look like a target
    core = nearest**0.4 * np.exp(0.52 * points.noise["core"] + 0.24 * points.noise["fine"] + pleura / 40.0) / tendency
    return nearest, core.astype(np.float32), owner


# --- appearance ------------------------------------------------------------------------------------------------------


def _draw_patches(
    patches: list[Lesion], levels: tuple[float, float], points: Points, before: FloatArray, grid: Grid
) -> tuple[FloatArray, NDArray[np.uint8]]:
    level, core_level = levels
    # beyond twice the level nothing is drawn: the fading margin ends at 1.45 times
    ground, core, owner = _distance(patches, points, 2.0 * level)
    inside = ground < level
    kind_of = np.array([patch.kind for patch in patches], dtype=np.uint8)
    kinds = np.where(inside, kind_of[owner], 0).astype(np.uint8)
    kinds[inside & (core < core_level)] = CONSOLIDATION
    density = np.array([patch.density for patch in patches], dtype=np.float32)[owner]
    grain, fine, broad = points.noise["grain"], points.noise["fine"], points.noise["broad"]
    glass = -690.0 + 200.0 * density + 28.0 * broad + 28.0 * fine + 18.0 * grain
    mesh = kinds == CRAZY_PAVING
    if mesh.any():
        glass[mesh] += _mesh(points.noise["mesh"][mesh], grid)
    # ground-glass fades over its margin, inside and a little outside the line that the mask draws
    edge = np.clip(0.5 + (level - ground) / (0.9 * level), 0.0, 1.0)
    opacity = edge * edge * (3.0 - 2.0 * edge)
    after = before + opacity * np.maximum(glass - before, 0.0)
    if core_level > 0:
        firm = np.clip((core_level - core) / (0.8 * core_level) + 0.45, 0.0, 1.0) * np.clip(3.0 * edge - 1.5, 0.0, 1.0)
        solid = -110.0 + 110.0 * density + 26.0 * fine + 20.0 * grain
        after += firm * np.maximum(solid - after, 0.0)
    return after.astype(np.float32), kinds


def _mesh(noise: FloatArray, grid: Grid) -> FloatArray:
    """Thickened septa: a net where the noise crosses zero, fainter on grids too coarse to show it."""
    blur = float(np.clip(1.2 / max(grid.spacing_mm[1], grid.spacing_mm[2]), 0.35, 1.0))
    return 260.0 * blur * np.exp(-np.square(noise / np.float32(0.38 / blur))) - 20.0


def _draw_band(band: Lesion, points: Points, after: FloatArray, kinds: NDArray[np.uint8], grid: Grid) -> None:
    """A curved line that follows the pleura at some depth."""
    (cz, cy, cx), (rz, ry, rx) = band.centre_mm, band.radius_mm
    d = np.square((points.z - cz) / rz) + np.square((points.y - cy) / ry) + np.square((points.x - cx) / rx)
    near = np.flatnonzero(d < 1.0)
    if near.size == 0 or band.depth_mm is None:
        return
    half = max(1.3, 0.5 * max(grid.spacing_mm[1], grid.spacing_mm[2]))
    off = points.pleura[near] - band.depth_mm - 1.3 * points.noise["fine"][near]
    strength = np.exp(-np.square(off / np.float32(half))) * np.clip(2.0 * (1.0 - d[near]), 0.0, 1.0)
    target = -380.0 + 260.0 * band.density
    after[near] += strength * np.maximum(target - after[near], 0.0)
    drawn = near[strength > 0.5]
    kinds[drawn] = np.where(kinds[drawn] == CONSOLIDATION, CONSOLIDATION, BAND)


def _bounding_box(inside: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    found = []
    for axes in ((1, 2), (0, 2), (0, 1)):
        hit = np.flatnonzero(inside.any(axis=axes))
        if hit.size == 0:
            return None
        found.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return found[0], found[1], found[2]


__all__ = ["DayLesions", "Lesion", "LesionModel", "Points", "Survey", "make_lesions", "survey"]
