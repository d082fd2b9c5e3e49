"""Where a slab lies in a chest and how it is bent: position, size, tilt, rotation, elastic deformation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from m2unet.phantom.grid import FloatArray
from m2unet.phantom.randomised.pool import FISSURE_STEP_MM, PLEURA_STEP_MM, SPACING_MM, Chest
from m2unet.phantom.smooth import SmoothField

PIXEL_MM = 2.0
STEP_MM = 6.0
"""Grid of the slabs: pixel, and distance of slices."""
FINE = 3
"""Thin slices that are averaged to a thick one."""


@dataclass(frozen=True)
class SpaceKnobs:
    """How slabs are cut from chests.

    Attributes:
        size: shape of a slab's slices in pixels of 2 mm, ``(y, x)``.
        slices: slices of a slab, 6 mm apart.
        zoom: range of the magnification common to y and x.
        stretch: standard deviation of the log of the magnifications of y and x against each other.
        step: range of the distance of slices, by 6 mm.
        thick_share: share of slabs whose slices are as thick as they are apart, the average of :data:`FINE` thin ones.
        thick_step: range of their distance, by 6 mm: up to 10 mm.
        shift_mm: standard deviation of the body's place in the picture, ``(y, x)``.
        rotation_degrees: standard deviation of the turn in the picture's plane.
        tilt_degrees: standard deviation of the slices' tilt from head to back.
        bend_mm: standard deviation of the elastic deformation.
        bend_scale_mm: range of the distance of its lattice points.
        beyond_share: share of slabs that may lie in neck or abdomen; the others have their middle in the lungs.
        beyond: how far these reach below and above the lungs, by the lungs' height.
    """

    size: tuple[int, int] = (160, 192)
    slices: int = 10
    zoom: tuple[float, float] = (0.84, 1.22)
    stretch: float = 0.05
    step: tuple[float, float] = (0.75, 1.3)
    thick_share: float = 0.25
    thick_step: tuple[float, float] = (0.8, 1.7)
    shift_mm: tuple[float, float] = (14.0, 16.0)
    rotation_degrees: float = 6.0
    tilt_degrees: float = 5.0
    bend_mm: float = 4.0
    bend_scale_mm: tuple[float, float] = (35.0, 80.0)
    beyond_share: float = 0.2
    beyond: tuple[float, float] = (0.35, 0.25)


@dataclass
class Slab:
    """A slab of slices before and while its look is invented; arrays ``[s, y, x]``.

    Attributes:
        hu: float32.
        lobes: uint8, 6 airway.
        fissure_mm, pleura_mm: float32, distance from the nearest fissure, depth below the pleura.
        height: float32 ``[s]``, -1 at the lungs' base, 1 at the apex.
        sheet: float32, 1 in the middle of a fissure's sheet, 0 where there is none; None until tissues are painted.
        fine: thin slices that make a slice, 1 or :data:`FINE`.
    """

    hu: FloatArray
    lobes: NDArray[np.uint8]
    fissure_mm: FloatArray
    pleura_mm: FloatArray
    height: FloatArray
    sheet: FloatArray | None = None
    fine: int = 1

    @property
    def step_mm(self) -> float:
        """Distance of its slices, thin or not, before it is stretched."""
        return STEP_MM / self.fine

    def smooth(self, rng: np.random.Generator, scale_mm: float) -> FloatArray:
        """A smooth random field over the slab, mean 0, standard deviation 1."""
        return smooth_field(self.hu.shape, rng, scale_mm, self.step_mm)

    def thick(self) -> Slab:
        """The slab with its thin slices averaged; of labels and heights the middle one counts."""
        if self.fine == 1:
            return self
        middle = slice(self.fine // 2, None, self.fine)
        return Slab(
            hu=self._averaged(self.hu),
            lobes=self.lobes[middle],
            fissure_mm=self.fissure_mm[middle],
            pleura_mm=self.pleura_mm[middle],
            height=self.height[middle],
            sheet=None if self.sheet is None else self._averaged(self.sheet),
        )

    def _averaged(self, values: FloatArray) -> FloatArray:
        return np.asarray(values.reshape(-1, self.fine, *values.shape[1:]).mean(axis=1), np.float32)


def smooth_field(
    shape: tuple[int, ...], rng: np.random.Generator, scale_mm: float, step_mm: float = STEP_MM
) -> FloatArray:
    """A smooth random field over slices of the slabs' grid."""
    steps = (step_mm, PIXEL_MM, PIXEL_MM)
    axes = [step * np.arange(count, dtype=np.float32) for count, step in zip(shape, steps, strict=True)]
    high = (float(axes[0][-1]), float(axes[1][-1]), float(axes[2][-1]))
    return SmoothField(rng, (0.0, 0.0, 0.0), high, scale_mm).on(axes[0], axes[1], axes[2])


def cut_slab(chest: Chest, rng: np.random.Generator, knobs: SpaceKnobs) -> Slab:
    """Cut a bent slab out of a chest; where its slices are thick, they become the slab's, as at prediction."""
    depth = chest.hu.shape[0]
    extent = chest.apex - chest.base
    given = chest.step_mm >= knobs.step[0] * STEP_MM
    thick = rng.random() < knobs.thick_share and not given
    fine = FINE if thick else 1
    step = STEP_MM / chest.step_mm / fine * float(rng.uniform(*(knobs.thick_step if thick else knobs.step)))
    if rng.random() < knobs.beyond_share:
        middle = rng.uniform(chest.base - knobs.beyond[0] * extent, chest.apex + knobs.beyond[1] * extent)
    else:
        middle = rng.uniform(chest.base, chest.apex)
    count = knobs.slices * fine
    if given:
        step, middle = 1.0, np.round(middle - (count - 1) / 2) + (count - 1) / 2
    levels = middle + step * (np.arange(count) - (count - 1) / 2)
    levels = np.clip(levels, 0, depth - 1).astype(np.float32)
    places = _places(chest, levels, STEP_MM / fine, rng, knobs)
    hu, fissure, pleura = _sampled(chest, places)
    return Slab(
        hu=hu,
        lobes=_nearest(chest.maps[0], places),
        fissure_mm=fissure * np.float32(FISSURE_STEP_MM),
        pleura_mm=pleura * np.float32(PLEURA_STEP_MM),
        height=(2 * (levels - chest.base) / extent - 1).astype(np.float32),
        fine=fine,
    )


_BEYOND = np.array([-1000, 255, 0], np.float32)[:, None, None, None]
"""HU, fissure distance and pleura depth, as stored, outside of what is kept of a chest."""


def _sampled(chest: Chest, places: FloatArray) -> FloatArray:
    """HU and the two distance maps at voxel coordinates ``[3, s, y, x]``, linear: ``[3, s, y, x]`` float32."""
    low = max(int(places[0].min()), 0)
    part = slice(low, int(places[0].max()) + 2)
    values = np.concatenate([chest.hu[None, part], chest.maps[1:, part]], dtype=np.float32, casting="unsafe")
    values -= _BEYOND
    scale = np.array([2 / max(count - 1, 1) for count in values.shape[1:]], np.float32)
    origin = np.array([low, 0, 0], np.float32)
    grid = (places.transpose(1, 2, 3, 0) - origin) * scale - 1
    where = torch.from_numpy(np.ascontiguousarray(grid[..., ::-1], np.float32))  # torch wants x, y, z
    found = F.grid_sample(torch.from_numpy(values)[None], where[None], padding_mode="zeros", align_corners=True)
    return np.asarray(found[0].numpy() + _BEYOND, np.float32)


def _nearest(values: NDArray[np.uint8], places: FloatArray) -> NDArray[np.uint8]:
    """The value of the nearest voxel, 0 outside."""
    near = np.rint(places).astype(np.int32)
    inside = np.logical_and.reduce([(n >= 0) & (n < count) for n, count in zip(near, values.shape, strict=True)])
    z, y, x = (np.clip(n, 0, count - 1) for n, count in zip(near, values.shape, strict=True))
    return np.asarray(values[z, y, x] * inside, np.uint8)


def _places(
    chest: Chest, levels: FloatArray, step_mm: float, rng: np.random.Generator, knobs: SpaceKnobs
) -> FloatArray:
    """Voxel coordinates ``[3, s, y, x]`` in the chest of every pixel of the slab."""
    rows, columns = knobs.size
    shape = (len(levels), rows, columns)
    y = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2)[:, None] * np.float32(PIXEL_MM)
    x = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2)[None] * np.float32(PIXEL_MM)
    zoom = rng.uniform(*knobs.zoom) * np.exp(knobs.stretch * rng.standard_normal(2))
    angle = np.deg2rad(knobs.rotation_degrees * rng.standard_normal())
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    turned_y = (cos * y + sin * x) / np.float32(zoom[0])
    turned_x = (cos * x - sin * y) / np.float32(zoom[1])
    shift = rng.standard_normal(2) * knobs.shift_mm
    scale = rng.uniform(*knobs.bend_scale_mm)
    bend = [knobs.bend_mm * smooth_field(shape, rng, scale, step_mm) for _ in range(3)]
    tilt = np.tan(np.deg2rad(knobs.tilt_degrees * rng.standard_normal()))
    places = np.empty((3, *shape), np.float32)
    places[0] = levels[:, None, None] + (bend[0] + np.float32(tilt) * turned_y) / np.float32(chest.step_mm)
    np.clip(places[0], 0, chest.hu.shape[0] - 1, out=places[0])
    centre = _middle(chest)
    places[1] = (turned_y + np.float32(shift[0]) + bend[1]) / np.float32(SPACING_MM[1]) + centre[0]
    places[2] = (turned_x + np.float32(shift[1]) + bend[2]) / np.float32(SPACING_MM[2]) + centre[1]
    return places


def _middle(chest: Chest) -> tuple[float, float]:
    """Middle of the lungs at half height, in voxels ``(y, x)``."""
    plane = chest.maps[0][int(np.clip(round((chest.base + chest.apex) / 2), 0, len(chest.hu) - 1))] > 0
    if not plane.any():
        plane = np.asarray(chest.maps[0] > 0).any(axis=0)
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    return float(rows[0] + rows[-1]) / 2, float(columns[0] + columns[-1]) / 2
