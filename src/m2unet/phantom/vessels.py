"""Pulmonary vessels and airways of one chest: trees from the hila into every lobe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.phantom.grid import FloatArray, Grid
from m2unet.phantom.parameters import AnatomyParameters
from m2unet.phantom.tubes import Tubes, grow_tree

TIPS_PER_ML = 0.55
"""Thinnest drawn branches of one vessel tree (artery or vein) a millilitre of lung."""


ROOT_LEVEL = {1: 0.6, 2: -0.4, 3: -0.6, 4: 0.4, 5: -0.6}
"""Where each lobe's bronchus leaves above (+) or below the hilum: upper lobes' first, then the middle, then the lower
lobes'; in units of :attr:`AnatomyParameters.lobar_roots`."""


@dataclass(frozen=True)
class Trees:
    """Tubes in inner body coordinates: vessels in the lungs, windpipe and bronchi (radii of the lumen)."""

    vessels: Tubes
    airways: Tubes


def carina_mm(p: AnatomyParameters) -> NDArray[np.float64]:
    """Where the windpipe parts, ``(z, y, x)``."""
    return np.array([p.carina * p.lung_height_mm, 0.10 * p.half_depth_mm, -3.0])


def grow_trees(p: AnatomyParameters, lobes: NDArray[np.uint8], depth: FloatArray, grid: Grid) -> Trees:
    """Grow all trees of one chest.

    Args:
        p: the chest.
        lobes: lobe codes on a coarse grid.
        depth: depth below the pleura in mm on the same grid.
        grid: that grid.
    """
    rng = np.random.default_rng((p.seed, 1))
    carina = carina_mm(p)
    h, d = p.lung_height_mm, p.half_depth_mm
    r = p.trachea_mm
    air = [_line([(1.45 * h, 0, 0), (h, 0.06 * d, -2), carina], (r, r, r * 1.02))]
    vessels = []
    hila = {-1: carina + np.array([-0.105 * h, 6, -31]), 1: carina + np.array([-0.125 * h, 10, 38])}
    for side, hilum in hila.items():
        bend = carina + (hilum - carina) * 0.5 + np.array([4, 0, 0])
        wide = r * (0.86 if side < 0 else 0.76)
        air.append(_line([carina, bend, hilum], (r * 0.95, wide, wide * 0.85)))
    voxel = float(np.prod(grid.spacing_mm)) / 1000
    for code in range(1, 6):
        side = -1 if code <= 3 else 1
        inside = np.argwhere((lobes == code) & (depth > 2))
        if len(inside) < 8:
            continue
        places = inside * np.array(grid.spacing_mm) + np.array(grid.origin_mm)
        centre = places.mean(0)
        root = hila[side] + 0.10 * (centre - hila[side])
        root[0] += ROOT_LEVEL[code] * p.lobar_roots * h
        tips = int(np.clip(len(inside) * voxel * TIPS_PER_ML, 20, 900))
        for shift in ((4, -6, 0), (-6, 7, 0)):
            chosen = places[rng.choice(len(places), min(tips, len(places)), replace=False)]
            chosen = chosen + rng.uniform(-0.5, 0.5, chosen.shape) * grid.spacing_mm
            start = root + np.array(shift)
            vessels.append(grow_tree(start, chosen, 4.0 * (tips / 450) ** 0.33, 0.64, rng))
            vessels.append(_line([hila[side] + np.array(shift) * 0.7, start], (6.5, 4.2)))
        deep = places[depth[tuple(inside.T)] > min(12.0, float(np.quantile(depth[tuple(inside.T)], 0.6)))]
        ends = deep[rng.choice(len(deep), min(14, len(deep)), replace=False)]
        ends = root + 0.72 * (ends - root)
        air.append(_line([hila[side], root], (0.6 * r, 0.5 * r)))
        air.append(grow_tree(root, ends, 0.46 * r, 1.1, rng))
    return Trees(vessels=Tubes.join(vessels), airways=Tubes.join(air))


def _line(path: Sequence[ArrayLike], radii: tuple[float, ...]) -> Tubes:
    at = np.stack([np.asarray(place, np.float32) for place in path])
    r = np.array(radii, np.float32)
    return Tubes(at[:-1], at[1:], np.stack([r[:-1], r[1:]], 1))
