"""A parametric digital chest: drawn once from its parameters, rendered on any grid.

>>> anatomy = Anatomy(draw_anatomy(np.random.default_rng(7)))
>>> tissues = anatomy.render(Grid.around(*anatomy.lung_extent_mm, (5.0, 2.0, 2.0)))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2unet.phantom import fissures
from m2unet.phantom.fissures import lobe_codes
from m2unet.phantom.frame import Frame
from m2unet.phantom.grid import FAR_MM, FloatArray, Grid, Tissues, Triple
from m2unet.phantom.lungs import LungFields, lung_fields
from m2unet.phantom.parameters import AnatomyParameters, MinorFissure, ObliqueFissure, Sex, draw_anatomy
from m2unet.phantom.shape import Points
from m2unet.phantom.tubes import Tubes
from m2unet.phantom.vessels import Trees, grow_trees

COARSE_MM = 6.0


@dataclass(frozen=True)
class LobeFields:
    """The lungs' fields and the signed distances from the fissures, positive above.

    Attributes:
        lungs: lungs, chest wall, diaphragm, mediastinum.
        oblique: the right lung's major fissure where ``x < 0``, the left one's elsewhere.
        minor: the minor fissure, of meaning in the right lung only.
        right: bool, where ``x < 0`` in the upright body.
    """

    lungs: LungFields
    oblique: FloatArray
    minor: FloatArray
    right: NDArray[np.bool_]

    def lobes(self) -> NDArray[np.uint8]:
        """Lobe codes 1-5, 0 outside."""
        return lobe_codes(self.lungs.both > 0, self.right, self.oblique, self.minor)


def lobe_fields(p: AnatomyParameters, points: Points) -> LobeFields:
    """Fields of lungs and fissures at points."""
    right = points.x < 0
    lungs = lung_fields(p, points)
    oblique = np.where(
        right,
        fissures.oblique(p, p.oblique_right, points, -1),
        fissures.oblique(p, p.oblique_left, points, 1),
    )
    return LobeFields(lungs, oblique, fissures.minor(p, p.minor, points), np.broadcast_to(right, oblique.shape))


class Anatomy:
    """One patient's healthy chest.

    Args:
        parameters: from :func:`draw_anatomy`, or with knobs set by hand.

    Attributes:
        parameters: as given.
        lung_extent_mm: lowest and highest corner ``(z, y, x)`` of the lungs at full breath, in patient coordinates.
        body_extent_mm: the same for the body from the abdomen (240 mm below the lungs) to the neck (90 mm above them).
        trees: pulmonary vessels and airways, in inner body coordinates.
    """

    def __init__(self, parameters: AnatomyParameters) -> None:
        self.parameters = parameters
        p = parameters
        reach = (p.half_depth_mm + 8, p.half_width_mm + 12)
        grid = Grid.around((0, -reach[0], -reach[1]), (p.lung_height_mm, *reach), (COARSE_MM,) * 3)
        z, y, x = grid.axes()
        points = Points(z[:, None, None], y[None, :, None], x[None, None, :], z[:, None, None], grid.spacing_mm)
        fields = lobe_fields(p, points)
        codes = fields.lobes()
        self.trees: Trees = grow_trees(p, codes, fields.lungs.both, grid)
        inside = np.argwhere(codes > 0)
        corners = Frame(p).patient((inside * COARSE_MM + np.array(grid.origin_mm)).astype(np.float32))
        low, high = corners.min(0) - COARSE_MM / 2, corners.max(0) + COARSE_MM / 2
        self.lung_extent_mm: tuple[Triple, Triple] = (tuple(map(float, low)), tuple(map(float, high)))  # type: ignore[assignment]
        side = 1.06 * (p.half_width_mm + p.muscle_mm + p.fat_mm) + 28 + (75 if not p.arms_up else 35)
        depth = p.half_depth_mm + p.muscle_mm + p.fat_mm + 12
        front = depth + (30 if p.sex == "F" else 0)
        self.body_extent_mm: tuple[Triple, Triple] = (
            (-240.0, -front, -side),
            (p.lung_height_mm + 90.0, depth, side),
        )

    def render(self, grid: Grid, *, inspiration: float = 1.0, vessels: bool = True) -> Tissues:
        """Draw the chest on a grid.

        Args:
            grid: any grid; what lies beyond the body is air.
            inspiration: depth of breath, 1 full, 0 breathed out: the diaphragm rises and the lungs grow denser.
            vessels: draw the pulmonary vessels.
        """
        from m2unet.phantom.render import render

        return render(self, grid, Frame(self.parameters, inspiration), vessels=vessels)


__all__ = [
    "FAR_MM",
    "Anatomy",
    "AnatomyParameters",
    "Grid",
    "LobeFields",
    "MinorFissure",
    "ObliqueFissure",
    "Sex",
    "Tissues",
    "Tubes",
    "draw_anatomy",
    "lobe_fields",
]
