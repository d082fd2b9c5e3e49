"""Draw an anatomy on a grid: smooth fields on a coarse grid, interpolated slab by slab, thin things drawn in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from m2unet.phantom import skeleton
from m2unet.phantom.abdomen import abdomen_fields
from m2unet.phantom.frame import Frame
from m2unet.phantom.grid import FAR_MM, FloatArray, Grid, Tissues
from m2unet.phantom.shape import Points, coarse_grid
from m2unet.phantom.thorax import muscle, skin
from m2unet.phantom.tubes import Tubes, boxes, draw_thin, piece_field

if TYPE_CHECKING:
    from m2unet.phantom.anatomy import Anatomy

AIR, FAT, MUSCLE, BLOOD, LIVER, ORGAN, DISC, CANAL = -1000.0, -102.0, 52.0, 42.0, 60.0, 42.0, 85.0, 25.0
MARROW, CORTEX, CARTILAGE, AIRWAY_WALL = 190.0, 620.0, 105.0, 20.0
SLAB_VOXELS = 3_000_000

NAMES = (
    "skin", "muscle", "wall", "above", "soft", "right", "left", "oblique_right", "oblique_left", "minor",
    "liver", "organs", "gas", "grain",
)  # fmt: skip


def coarse_step(grid: Grid) -> float:
    """Step of the coarse grid in mm: finer grids are given finer fields."""
    return float(np.clip(2.2 * min(grid.spacing_mm[1:]), 2.5, 5.0))


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
        "right": lungs.right,
        "left": lungs.left,
        "oblique_right": lobes.oblique_right,
        "oblique_left": lobes.oblique_left,
        "minor": lobes.minor,
        "liver": abdomen.liver,
        "organs": abdomen.organs,
        "gas": abdomen.gas,
        "grain": grain(p.seed, points),
    }
    inner = (slice(1, -1),) * 3
    return {name: np.ascontiguousarray(np.broadcast_to(fields[name], wider.shape)[inner]) for name in NAMES}, coarse


def grain(seed: int, points: Points, step_mm: float = 9.0) -> FloatArray:
    """Smooth random texture fixed to the body, mean 0, standard deviation about 1."""
    from scipy.ndimage import map_coordinates

    rng = np.random.default_rng((seed, 2))
    lattice = rng.standard_normal((72, 48, 64)).astype(np.float32)
    shape = np.broadcast_shapes(points.z.shape, points.y.shape, points.x.shape)
    places = np.stack([np.broadcast_to(a / np.float32(step_mm), shape) for a in (points.inner_z, points.y, points.x)])
    return np.asarray(map_coordinates(lattice, places, order=1, mode="grid-wrap") * np.float32(1.8), np.float32)


class _Upsampler:
    """Linear interpolation of coarse fields to slabs of the fine grid."""

    def __init__(self, fields: dict[str, FloatArray], coarse: Grid, grid: Grid) -> None:
        import torch

        self._stack = torch.from_numpy(np.stack([fields[name] for name in NAMES]))
        self._ratio = grid.spacing_mm[0] / coarse.spacing_mm[0]
        self._shape = grid.shape[1:]

    def slab(self, first: int, last: int) -> dict[str, FloatArray]:
        import torch
        from torch.nn.functional import interpolate

        at = np.arange(first, last) * self._ratio
        low = np.clip(np.floor(at).astype(np.int64), 0, self._stack.shape[1] - 1)
        high = np.minimum(low + 1, self._stack.shape[1] - 1)
        part = torch.from_numpy((at - low).astype(np.float32))[None, :, None, None]
        planes = torch.lerp(self._stack[:, low], self._stack[:, high], part)
        fine = interpolate(planes, size=self._shape, mode="bilinear", align_corners=True).numpy()
        return dict(zip(NAMES, fine, strict=True))


def render(anatomy: Anatomy, grid: Grid, frame: Frame, *, vessels: bool) -> Tissues:
    """See :meth:`m2unet.phantom.anatomy.Anatomy.render`."""
    fields, coarse = coarse_fields(anatomy, grid, frame)
    up = _Upsampler(fields, coarse, grid)
    shape = grid.shape
    out = Tissues(
        hu=np.empty(shape, np.float32),
        lobes=np.zeros(shape, np.uint8),
        pleura_mm=np.zeros(shape, np.float32),
        fissure_mm=np.full(shape, FAR_MM, np.float32),
        vessels=np.zeros(shape, np.bool_),
    )
    thick = max(1, SLAB_VOXELS // (shape[1] * shape[2]))
    for first in range(0, shape[0], thick):
        last = min(first + thick, shape[0])
        _Slab(anatomy, grid.slab(first, last), frame, up.slab(first, last)).paint(out, slice(first, last))
    axes = grid.axes()
    _draw_long_bones(anatomy, grid, frame, axes, out)
    if vessels:
        _draw_vessels(anatomy, grid, frame, axes, out)
    _draw_airways(anatomy, grid, frame, axes, out)
    return out


class _Slab:
    """A few slices on which everything but tubes is painted, from outside in."""

    def __init__(self, anatomy: Anatomy, grid: Grid, frame: Frame, fields: dict[str, FloatArray]) -> None:
        self.p, self.grid, self.frame, self.f = anatomy.parameters, grid, frame, fields
        self.soften = np.float32(1 / (1.2 * max(grid.spacing_mm[1], grid.spacing_mm[2], 0.6)))
        self.hu = np.full(grid.shape, AIR, np.float32)

    def cover(self, field: FloatArray) -> FloatArray:
        """Share of each voxel inside a shape, from its field."""
        share = field * self.soften
        share += np.float32(0.5)
        return np.clip(share, 0, 1, out=share)

    def lay(self, field: FloatArray, value: float | FloatArray) -> None:
        """Paint a shape of one HU, or an array of them, over what is there."""
        share = self.cover(field)
        share *= value - self.hu
        self.hu += share

    def paint(self, out: Tissues, where: slice) -> None:
        f, grain = self.f, self.f["grain"]
        self.lay(f["skin"], np.float32(FAT) + 4 * grain)
        self.lay(f["muscle"], self._flesh())
        below = -f["above"]
        self.lay(np.minimum(f["wall"], below), FAT)
        self.lay(np.minimum(f["wall"], f["above"] + 3), np.where(f["above"] < 0, np.float32(MUSCLE), np.float32(FAT)))
        self.lay(f["soft"], BLOOD)
        self.lay(f["liver"], np.float32(LIVER) + 2 * grain)
        self.lay(f["organs"], ORGAN)
        self.lay(f["gas"], AIR)
        self._bones()
        self._lungs(out, where)
        out.hu[where] = self.hu

    def _flesh(self) -> FloatArray:
        """Muscle with layers of fat between its bundles, more of them far from the ribs."""
        far = np.clip((-self.f["wall"] - 14) / 20, 0, 1)
        fat = np.clip((self.f["grain"] - 0.9) * 1.6, 0, 1) * far
        return np.float32(MUSCLE) + 3 * self.f["grain"] + fat * np.float32(FAT - MUSCLE)

    def _bones(self) -> None:
        self._shell_bones()
        self._spine()
        z, y, x = skeleton.sternum_box_mm(self.p)
        box = self._box(z, y, x)
        if box is not None:
            self._bone(box, skeleton.sternum_field(self.p, self._points(box)))

    def _shell_bones(self) -> None:
        low, high = skeleton.BLADE_SHELL_MM[0], skeleton.RIB_SHELL_MM[1]
        at = np.nonzero((self.f["wall"] > low) & (self.f["wall"] < high) & (self.f["muscle"] > 2))
        if not len(at[0]):
            return
        z, y, x = self.grid.axes()
        body = self.frame.body(z[at[0]], y[at[1]], x[at[2]], self.grid.spacing_mm)
        wall = self.f["wall"][at]
        ribs, cartilage = skeleton.rib_field(self.p, body.z, body.y, body.x, wall)
        blades = skeleton.blade_field(self.p, body.z, body.y, body.x, wall)
        field = np.maximum(ribs, blades)
        value = _bone_hu(field)
        value += cartilage * (CARTILAGE - value)
        share = np.clip(field * self.soften + 0.5, 0, 1)
        self.hu[at] += share * (value - self.hu[at])

    def _spine(self) -> None:
        y, x = skeleton.spine_box_mm(self.p)
        box = self._box((-1e6, 1e6), y, x)
        if box is None:
            return
        bone, disc, canal = skeleton.spine_fields(self.p, self._points(box))
        inside = self.hu[box]
        for field, value in ((disc, DISC), (canal, CANAL)):
            inside += self.cover(field.copy()) * (np.float32(value) - inside)
        self._bone(box, bone)

    def _bone(self, box: tuple[slice, slice, slice], field: FloatArray) -> None:
        part = self.hu[box]
        part += self.cover(field) * (_bone_hu(field) - part)

    def _box(
        self, z: tuple[float, float], y: tuple[float, float], x: tuple[float, float]
    ) -> tuple[slice, slice, slice] | None:
        """The voxels of a box given in body coordinates, with room for rotation and scoliosis."""
        swing = abs(self.p.scoliosis_mm)
        turn = abs(np.sin(np.deg2rad(self.p.rotation_degrees)))
        slack = (0.0, turn * max(map(abs, x)) + 2, swing + turn * max(map(abs, y)) + 2)
        found = []
        for axis, (low, high), more in zip(self.grid.axes(), (z, y, x), slack, strict=True):
            first, last = np.searchsorted(axis, (low - more, high + more))
            if first >= last:
                return None
            found.append(slice(int(first), int(last)))
        return found[0], found[1], found[2]

    def _points(self, box: tuple[slice, slice, slice]) -> Points:
        z, y, x = (axis[s] for axis, s in zip(self.grid.axes(), box, strict=True))
        return self.frame.body(z[:, None, None], y[None, :, None], x[None, None, :], self.grid.spacing_mm)

    def _lungs(self, out: Tissues, where: slice) -> None:
        f, p = self.f, self.p
        depth = np.maximum(f["right"], f["left"])
        if not (depth > -1).any():
            return
        is_right = f["right"] > f["left"]
        oblique = np.where(is_right, f["oblique_right"], f["oblique_left"])
        inside = depth > 0
        upper = np.where(is_right, np.where(f["minor"] > 0, np.uint8(1), np.uint8(2)), np.uint8(4))
        lobes = np.where(oblique > 0, upper, np.where(is_right, np.uint8(3), np.uint8(5)))
        gap = np.abs(oblique)
        gap = np.where(is_right & (oblique > 0), np.minimum(gap, np.abs(f["minor"])), gap)
        out.lobes[where] = _without(p.missing_lobe, lobes) * inside
        out.pleura_mm[where] = np.where(inside, depth, 0)
        out.fissure_mm[where] = np.where(inside, gap, FAR_MM)
        y = self.grid.axes()[1][None, :, None]
        fresh = np.float32(p.lung_hu) + np.float32(p.gravity_hu_per_mm) * y + 14 * f["grain"]
        air = 1 - (1 - self.frame.inspiration) * 0.45
        value = (fresh + 1000) / np.float32(air) - 1000
        sheet = np.clip(1.0 - (gap - 0.4) * self.soften, 0, 1) * min(1.0, 0.9 * float(self.soften))
        sheet *= np.clip((depth - 1) * 0.5, 0, 1) * np.float32(220)
        self.lay(depth, value + sheet)


def _bone_hu(field: FloatArray) -> FloatArray:
    """Cortex outside, marrow inside."""
    core = np.clip((field - np.float32(1.6)) * np.float32(0.7), 0, 1)
    return np.float32(CORTEX) + core * np.float32(MARROW - CORTEX)


NEIGHBOUR = {1: 2, 2: 1, 3: 2, 4: 5, 5: 4}


def _without(missing: int, lobes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if missing:
        lobes[lobes == missing] = NEIGHBOUR[missing]
    return lobes


def _moved(tubes: Tubes, frame: Frame) -> Tubes:
    return Tubes(frame.patient(tubes.start), frame.patient(tubes.end), tubes.radius)


def _draw_long_bones(anatomy: Anatomy, grid: Grid, frame: Frame, axes: tuple[FloatArray, ...], out: Tissues) -> None:
    upright = Frame(frame.parameters)
    bones = _moved(skeleton.long_bones(anatomy.parameters), upright)
    width = 1.2 * max(grid.spacing_mm[1:])
    for number, box in boxes(bones, grid, width):
        field = piece_field(bones, number, axes, box)
        part = out.hu[box]
        part += np.clip(field / width + 0.5, 0, 1) * (_bone_hu(field) - part)


def _draw_vessels(anatomy: Anatomy, grid: Grid, frame: Frame, axes: tuple[FloatArray, ...], out: Tissues) -> None:
    tubes = _moved(anatomy.trees.vessels, frame)
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
    tubes = _moved(anatomy.trees.airways, frame)
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
