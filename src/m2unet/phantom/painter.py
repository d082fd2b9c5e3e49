"""Painting a slab of slices, from the skin inwards."""

from __future__ import annotations

import numpy as np

from m2unet.phantom import skeleton
from m2unet.phantom.fissures import lobe_codes
from m2unet.phantom.frame import Frame
from m2unet.phantom.grid import FloatArray, Grid, Tissues
from m2unet.phantom.mediastinum import spine_y
from m2unet.phantom.parameters import AnatomyParameters
from m2unet.phantom.shape import Points
from m2unet.phantom.upsample import Plane, Slab

AIR, FAT, MUSCLE, BLOOD, LIVER, ORGAN, DISC, CANAL = -1000.0, -102.0, 50.0, 42.0, 58.0, 40.0, 80.0, 25.0
MEDIASTINUM = -35.0
MARROW, CORTEX, CARTILAGE, AIRWAY_WALL = 190.0, 620.0, 105.0, 0.0
FULL_BREATH_AIR = 0.45
"""Share of a full lung's air breathed out at no inspiration."""
NEIGHBOUR = {1: 2, 2: 1, 3: 2, 4: 5, 5: 4}
"""Who takes a missing lobe's room."""
Box = tuple[slice, slice, slice]


def bone_hu(field: FloatArray) -> FloatArray:
    """Cortex outside, marrow inside."""
    core = np.clip((field - np.float32(1.4)) * np.float32(0.8), 0, 1)
    return np.asarray(np.float32(CORTEX) + core * np.float32(MARROW - CORTEX), np.float32)


class Painter:
    """Paints one slab of an anatomy into the tissues.

    Args:
        p: the chest.
        frame: its coordinates.
        grid: the slab's grid.
        fields: the slab's smooth fields.
        out: what is painted on, whole.
        first: the slab's first slice in ``out``.
    """

    def __init__(self, p: AnatomyParameters, frame: Frame, grid: Grid, fields: Slab, out: Tissues, first: int) -> None:
        self.p, self.frame, self.grid, self.fields, self.out = p, frame, grid, fields, out
        self.span = slice(first, first + grid.shape[0])
        self.hu = out.hu[self.span]
        self.soften = np.float32(1 / (1.2 * max(grid.spacing_mm[1], grid.spacing_mm[2], 0.6)))
        self.margin = -1 / float(self.soften)

    def paint(self) -> None:
        """Paint everything but tubes."""
        body = self.fields.where("skin", self.margin)
        if body is None:
            return
        grain = self._wall(body)
        self._simple("soft", BLOOD)
        self._simple("liver", LIVER)
        self._simple("organs", ORGAN)
        self._simple("gas", AIR)
        self._paraspinal()
        self._shell_bones(body)
        self._spine()
        boxes = [skeleton.blade_box_mm(self.p, side) for side in (-1, 1)]
        for ranges, shape in [(skeleton.sternum_box_mm(self.p), skeleton.sternum_field)] + [
            (box, skeleton.blade_field) for box in boxes
        ]:
            found = self._box(*ranges)
            if found is not None:
                self._bone(found, shape(self.p, self._points(found)))
        self._lungs(body, grain)

    def cover(self, field: FloatArray) -> FloatArray:
        """Share of each voxel inside a shape, from its field."""
        share = field * self.soften
        share += np.float32(0.5)
        return np.clip(share, 0, 1, out=share)

    def lay(self, part: FloatArray, field: FloatArray, value: float | FloatArray) -> None:
        """Paint a shape of one HU, or an array of them, over part of the picture."""
        share = self.cover(field)
        share *= value - part
        part += share

    def _simple(self, name: str, value: float) -> None:
        plane = self.fields.where(name, self.margin)
        if plane is not None:
            self.lay(self.hu[:, plane[0], plane[1]], self.fields.fine(name, plane), value)

    def _wall(self, plane: Plane) -> FloatArray:
        """Fat, muscle, and what fills the cavity around its organs. Returns the grain."""
        part = self.hu[:, plane[0], plane[1]]
        grain = self.fields.fine("grain", plane)
        wall = self.fields.fine("wall", plane)
        self.lay(part, self.fields.fine("skin", plane), np.float32(FAT) + 4 * grain)
        # Fat between the muscles: a layer outside the ribs' own, and streaks, more of them far from the ribs.
        streaks = np.clip((grain - np.float32(0.8)) * np.float32(0.7), 0, np.float32(0.6))
        streaks *= np.clip((-wall - 13) / 12, 0, 1)
        layer = np.clip(np.float32(2.2) - np.abs(wall + np.float32(18) + 2 * grain), 0, 1)
        streaks = np.maximum(streaks, layer * np.clip(grain + np.float32(0.8), 0, np.float32(0.9)))
        flesh = np.float32(MUSCLE) + 3 * grain + streaks * np.float32(FAT - MUSCLE)
        self.lay(part, self.fields.fine("muscle", plane), flesh)
        above = self.fields.fine("above", plane)
        sheet = np.clip(np.float32(2.0) - np.abs(above + np.float32(1.5)), 0, 1)
        # Between the lungs lie fat, nodes and small vessels mixed; below the diaphragm fat alone.
        between = np.clip(above * np.float32(0.2), 0, 1) * (np.float32(MEDIASTINUM - FAT) + 18 * grain)
        self.lay(part, wall, np.float32(FAT) + np.maximum(between, sheet * np.float32(MUSCLE - FAT)))
        return grain

    def _paraspinal(self) -> None:
        """The muscle beside and behind the spine, in front of which the cavity's fat ends."""
        half = 0.36 * self.p.half_width_mm
        box = self._box((-1e6, 1e6), (0.3 * self.p.half_depth_mm, self.p.half_depth_mm * 1.02), (-half, half))
        if box is None:
            return
        points = self._points(box)
        field = np.minimum(
            points.y - spine_y(self.p, points.z) - np.float32(6), np.float32(half - 4) - np.abs(points.x)
        )
        part = self.hu[box]
        self.lay(part, np.broadcast_to(np.asarray(field, np.float32), part.shape), np.maximum(part, np.float32(MUSCLE)))

    def _shell_bones(self, plane: Plane) -> None:
        """The ribs, in the shell around the cavity."""
        wall = self.fields.fine("wall", plane)
        low, high = skeleton.RIB_SHELL_MM
        at = np.unravel_index(np.flatnonzero((wall > low) & (wall < high)), wall.shape)
        if not len(at[0]):
            return
        z, y, x = self.grid.axes()
        body = self.frame.body(z[at[0]], y[plane[0]][at[1]], x[plane[1]][at[2]], self.grid.spacing_mm)
        field, cartilage = skeleton.rib_field(self.p, body.z, body.y, body.x, wall[at])
        value = bone_hu(field)
        value += cartilage * (np.float32(CARTILAGE) - value)
        part = self.hu[:, plane[0], plane[1]]
        held = part[at]
        part[at] = held + self.cover(field) * (value - held)

    def _spine(self) -> None:
        y, x = skeleton.spine_box_mm(self.p)
        box = self._box((-1e6, 1e6), y, x)
        if box is None:
            return
        bone, disc, canal = skeleton.spine_fields(self.p, self._points(box))
        self.lay(self.hu[box], disc, DISC)
        self.lay(self.hu[box], canal, CANAL)
        self._bone(box, bone)

    def _bone(self, box: Box, field: FloatArray) -> None:
        self.lay(self.hu[box], field, bone_hu(field))

    def _box(self, z: tuple[float, float], y: tuple[float, float], x: tuple[float, float]) -> Box | None:
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

    def _points(self, box: Box) -> Points:
        z, y, x = (axis[s] for axis, s in zip(self.grid.axes(), box, strict=True))
        return self.frame.body(z[:, None, None], y[None, :, None], x[None, None, :], self.grid.spacing_mm)

    def _lungs(self, body: Plane, grain: FloatArray) -> None:
        """Lungs, lobes, fissures and the two distances."""
        plane = self.fields.where("lungs", self.margin)
        if plane is None:
            return
        p, out = self.p, self.out
        box = (slice(0, self.grid.shape[0]), *plane)
        depth = self.fields.fine("lungs", plane)
        oblique, minor = self.fields.fine("oblique", plane), self.fields.fine("minor", plane)
        points = self._points(box)
        inside, right = depth > 0, np.broadcast_to(points.x < 0, depth.shape)
        lobes = lobe_codes(inside, right, oblique, minor)
        if p.missing_lobe:
            lobes[lobes == p.missing_lobe] = NEIGHBOUR[p.missing_lobe]
        gap = np.abs(oblique)
        np.minimum(gap, np.abs(minor), out=gap, where=right & (oblique > 0))
        out.lobes[self.span, *plane] = lobes
        np.copyto(out.pleura_mm[self.span, *plane], depth, where=inside)
        np.copyto(out.fissure_mm[self.span, *plane], gap, where=inside)
        rows, columns = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(plane, body, strict=True))
        value = 14 * grain[:, rows, columns] + np.float32(p.lung_hu)
        value += np.float32(p.gravity_hu_per_mm) * points.y
        air = np.float32(1 - (1 - self.frame.inspiration) * FULL_BREATH_AIR)
        value = (value + 1000) / air - 1000
        value += self._sheet(gap, depth, points)
        self.lay(self.hu[:, plane[0], plane[1]], depth, value)

    def _sheet(self, gap: FloatArray, depth: FloatArray, points: Points) -> FloatArray:
        """What the fissures add to the lung's HU: a sheet under a millimetre thick, missing near the hilum."""
        pixel = 1 / float(self.soften)
        share = np.clip(np.float32(1.2) - gap * self.soften, 0, 1)
        share *= np.float32(140 * min(1.0, 0.9 / pixel))
        share *= np.clip((depth - 1) * 0.5, 0, 1)
        if self.p.fissure_incomplete > 0:
            width = np.float32(self.p.fissure_incomplete * self.p.half_width_mm)
            share *= np.clip((np.abs(points.x) - np.float32(22) - width) / 12 + 0.5, 0, 1)
        return share
