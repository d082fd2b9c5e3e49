"""Draw an anatomy on a grid: smooth fields on a coarse grid, interpolated slab by slab, thin things drawn in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2unet.phantom import skeleton
from m2unet.phantom.abdomen import abdomen_fields
from m2unet.phantom.frame import Frame
from m2unet.phantom.grid import FAR_MM, FloatArray, Grid, Tissues
from m2unet.phantom.painter import AIR, AIRWAY_WALL, BLOOD, Painter, bone_hu
from m2unet.phantom.shape import Points, coarse_grid
from m2unet.phantom.thorax import muscle, skin
from m2unet.phantom.tubes import Tubes, boxes, draw_thin, piece_field
from m2unet.phantom.upsample import CoarseFields

if TYPE_CHECKING:
    from m2unet.phantom.anatomy import Anatomy

SLAB_VOXELS = 800_000


def coarse_step(grid: Grid) -> float:
    """Step of the coarse grid in mm: finer grids are given finer fields."""
    return float(np.clip(2.4 * min(grid.spacing_mm[1:]), 3.0, 5.5))


def coarse_fields(anatomy: Anatomy, grid: Grid, frame: Frame) -> tuple[dict[str, FloatArray], Grid]:
    """All smooth fields over the grid's box, on a coarser grid with the same first and last voxel centres."""
    from m2unet.phantom.anatomy import lobe_fields

    p = anatomy.parameters
    coarse = coarse_grid(grid, coarse_step(grid))
    origin = tuple(o - s for o, s in zip(coarse.origin_mm, coarse.spacing_mm, strict=True))
    wider = Grid(tuple(n + 2 for n in coarse.shape), coarse.spacing_mm, origin)  # type: ignore[arg-type]
    points = frame.points(wider)
    lobes = lobe_fields(p, points)
    lungs = lobes.lungs
    flesh = muscle(p, points, lungs.wall)
    abdomen = abdomen_fields(p, points, lungs.wall, lungs.above_diaphragm)
    fields = {
        "skin": skin(p, points, flesh),
        "muscle": flesh,
        "wall": lungs.wall,
        "above": lungs.above_diaphragm,
        "soft": lungs.soft,
        "lungs": lungs.both,
        "oblique": lobes.oblique,
        "minor": lobes.minor,
        "liver": abdomen.liver,
        "organs": abdomen.organs,
        "gas": abdomen.gas,
        "grain": grain(p.seed, points),
    }
    inner = (slice(1, -1),) * 3
    return {name: np.ascontiguousarray(np.broadcast_to(f, wider.shape)[inner]) for name, f in fields.items()}, coarse


def grain(seed: int, points: Points, step_mm: float = 9.0) -> FloatArray:
    """Smooth random texture fixed to the body, mean 0, standard deviation about 1."""
    from scipy.ndimage import map_coordinates

    rng = np.random.default_rng((seed, 2))
    lattice = rng.standard_normal((72, 48, 64)).astype(np.float32)
    shape = np.broadcast_shapes(points.z.shape, points.y.shape, points.x.shape)
    places = np.stack([np.broadcast_to(a / np.float32(step_mm), shape) for a in (points.inner_z, points.y, points.x)])
    return np.asarray(map_coordinates(lattice, places, order=1, mode="grid-wrap") * np.float32(1.8), np.float32)


def render(anatomy: Anatomy, grid: Grid, frame: Frame, *, vessels: bool) -> Tissues:
    """See :meth:`m2unet.phantom.anatomy.Anatomy.render`."""
    fields, coarse = coarse_fields(anatomy, grid, frame)
    smooth = CoarseFields(fields, coarse, grid)
    shape = grid.shape
    out = Tissues(
        hu=np.full(shape, AIR, np.float32),
        lobes=np.zeros(shape, np.uint8),
        pleura_mm=np.zeros(shape, np.float32),
        fissure_mm=np.full(shape, FAR_MM, np.float32),
        vessels=np.zeros(shape, np.bool_),
    )
    thick = max(1, SLAB_VOXELS // (shape[1] * shape[2]))
    for first in range(0, shape[0], thick):
        last = min(first + thick, shape[0])
        Painter(anatomy.parameters, frame, grid.slab(first, last), smooth.slab(first, last), out, first).paint()
    axes = grid.axes()
    _draw_long_bones(anatomy, grid, frame, axes, out)
    if vessels:
        _draw_vessels(anatomy, grid, frame, axes, out)
    _draw_airways(anatomy, grid, frame, axes, out)
    return out


def _moved(tubes: Tubes, frame: Frame, grid: Grid) -> Tubes:
    """The pieces of tubes that come near the grid's slices, in patient coordinates."""
    start, end = frame.patient(tubes.start), frame.patient(tubes.end)
    reach = tubes.radius.max(1) + 2 * grid.spacing_mm[0] + 3
    low = grid.origin_mm[0] - reach
    high = grid.origin_mm[0] + (grid.shape[0] - 1) * grid.spacing_mm[0] + reach
    near = (np.maximum(start[:, 0], end[:, 0]) > low) & (np.minimum(start[:, 0], end[:, 0]) < high)
    return Tubes(start[near], end[near], tubes.radius[near])


def _draw_long_bones(anatomy: Anatomy, grid: Grid, frame: Frame, axes: tuple[FloatArray, ...], out: Tissues) -> None:
    upright = Frame(frame.parameters)
    bones = _moved(skeleton.long_bones(anatomy.parameters), upright, grid)
    width = 1.2 * max(grid.spacing_mm[1:])
    for number, box in boxes(bones, grid, width):
        field = piece_field(bones, number, axes, box)
        part = out.hu[box]
        part += np.clip(field / width + 0.5, 0, 1) * (bone_hu(field) - part)


def _draw_vessels(anatomy: Anatomy, grid: Grid, frame: Frame, axes: tuple[FloatArray, ...], out: Tissues) -> None:
    tubes = _moved(anatomy.trees.vessels, frame, grid)
    wide = max(grid.spacing_mm[1:])
    thick = tubes.radius.max(1) > 0.8 * max(wide, 0.6 * grid.spacing_mm[0])
    thin = Tubes(tubes.start[~thick], tubes.end[~thick], tubes.radius[~thick])
    voxels, share = draw_thin(thin, grid)
    flat_lobes, flat_hu, flat_vessels = out.lobes.reshape(-1), out.hu.reshape(-1), out.vessels.reshape(-1)
    keep = flat_lobes[voxels] > 0
    voxels, share = voxels[keep], share[keep]
    flat_hu[voxels] += share * (np.float32(BLOOD) - flat_hu[voxels])
    flat_vessels[voxels[share > 0.5]] = True
    big = Tubes(tubes.start[thick], tubes.end[thick], tubes.radius[thick])
    for number, box in boxes(big, grid, wide):
        field = piece_field(big, number, axes, box)
        part = out.hu[box]
        share = np.clip(field / (1.2 * wide) + 0.5, 0, 1)
        share *= out.lobes[box] > 0
        np.maximum(part, part + share * (np.float32(BLOOD) - part), out=part)
        out.vessels[box] |= share > 0.5


def _draw_airways(anatomy: Anatomy, grid: Grid, frame: Frame, axes: tuple[FloatArray, ...], out: Tissues) -> None:
    tubes = _moved(anatomy.trees.airways, frame, grid)
    wide = 1.2 * max(grid.spacing_mm[1:])
    found = boxes(tubes, grid, 2 + wide)
    for number, box in found:
        field = piece_field(tubes, number, axes, box)
        rim = float(np.clip(0.18 * tubes.radius[number].mean() + 0.3, 0.6, 1.6))
        part = out.hu[box]
        share = np.clip((field + rim) / wide + 0.5, 0, 1)
        np.maximum(part, part + share * (np.float32(AIRWAY_WALL) - part), out=part)
    for number, box in found:
        field = piece_field(tubes, number, axes, box)
        part = out.hu[box]
        share = np.clip(field / wide + 0.5, 0, 1)
        part += share * (np.float32(AIR) - part)
        lumen = field > 0
        out.lobes[box][lumen] = 6
        out.vessels[box][lumen] = False
        out.pleura_mm[box][lumen] = 0
        out.fissure_mm[box][lumen] = FAR_MM
