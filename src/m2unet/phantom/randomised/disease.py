"""Disease in a slab: opacities from none to all of the lung, nodules, effusion, reticulation, gas in the abdomen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2unet.phantom.grid import FloatArray
from m2unet.phantom.randomised.space import PIXEL_MM, Slab

Range = tuple[float, float]


@dataclass(frozen=True)
class DiseaseKnobs:
    """Shares are of slabs.

    Attributes:
        opacity_share: with opacities.
        extents: shares of the lung opacified are drawn from one of these ranges, by ``extent_weights``.
        scale_mm: distance of the lattice points of the opacities' outline.
        ground_glass: what ground glass adds, HU.
        consolidation: HU of consolidated lung.
        lobe_share: with a lobe wholly consolidated.
        nodule_share: with one to four nodules or masses, of ``nodule_mm`` radius.
        reticulation_share: with a coarse net below the pleura.
        effusion_share: with fluid in a pleural space (one side, or both), which is no lung.
        effusion: share of a lung's room that the fluid takes.
        gas_share: with gas bubbles in soft tissue outside the lungs.
    """

    opacity_share: float = 0.65
    extents: tuple[Range, ...] = ((0.01, 0.25), (0.25, 0.7), (0.7, 1.0))
    extent_weights: tuple[float, ...] = (0.55, 0.28, 0.17)
    scale_mm: Range = (7, 40)
    ground_glass: Range = (80, 480)
    consolidation: Range = (-120, 110)
    lobe_share: float = 0.06
    nodule_share: float = 0.15
    nodule_mm: Range = (4, 28)
    reticulation_share: float = 0.12
    effusion_share: float = 0.12
    effusion: Range = (0.02, 0.5)
    gas_share: float = 0.25


@dataclass(frozen=True)
class _Lung:
    """The lungs' voxels as vectors: flat index, side (bool, left), row, column, slice, depth below the pleura."""

    at: NDArray[np.intp]
    lobe: NDArray[np.uint8]
    z: FloatArray
    y: FloatArray
    x: FloatArray
    depth: FloatArray

    @classmethod
    def of(cls, slab: Slab) -> _Lung:
        at = np.flatnonzero((slab.lobes > 0) & (slab.lobes < 6))
        rows, columns = slab.hu.shape[1:]
        z, rest = np.divmod(at, rows * columns)
        y, x = np.divmod(rest, columns)
        return cls(
            at,
            slab.lobes.reshape(-1)[at],
            (z * slab.step_mm).astype(np.float32),
            (y * PIXEL_MM).astype(np.float32),
            (x * PIXEL_MM).astype(np.float32),
            slab.pleura_mm.reshape(-1)[at],
        )


def add_disease(slab: Slab, rng: np.random.Generator, knobs: DiseaseKnobs) -> None:
    """Invent disease, in place; fluid becomes background in ``slab.lobes``."""
    if rng.random() < knobs.gas_share:
        _gas(slab, rng)
    lung = _Lung.of(slab)
    if len(lung.at) < 50:
        return
    values = slab.hu.reshape(-1)[lung.at]
    if rng.random() < knobs.opacity_share:
        _opacify(slab, lung, values, rng, knobs)
    if rng.random() < knobs.lobe_share:
        chosen = lung.lobe == rng.integers(1, 6)
        values[chosen] += rng.uniform(0.7, 1) * (rng.uniform(*knobs.consolidation) - values[chosen])
    if rng.random() < knobs.nodule_share:
        _nodules(lung, values, rng, knobs)
    if rng.random() < knobs.reticulation_share:
        net = np.abs(slab.smooth(rng, rng.uniform(3, 7)).reshape(-1)[lung.at])
        rim = np.exp(-lung.depth / np.float32(rng.uniform(5, 40)))
        values += np.float32(rng.uniform(100, 500)) * rim * np.clip(0.8 - 2 * net, 0, 1)
    slab.hu.reshape(-1)[lung.at] = values
    if rng.random() < knobs.effusion_share:
        _effusion(slab, lung, rng, knobs)


def _opacify(slab: Slab, lung: _Lung, values: FloatArray, rng: np.random.Generator, knobs: DiseaseKnobs) -> None:
    """Opacities where a random score is highest; the score may like the rim, the back or a lobe."""
    score = slab.smooth(rng, rng.uniform(*knobs.scale_mm)).reshape(-1)[lung.at]
    score += np.float32(rng.uniform(-0.5, 2.5)) * np.exp(-lung.depth / np.float32(rng.uniform(5, 25)))
    score += np.float32(rng.uniform(-0.3, 1.2)) * (lung.y - lung.y.mean()) / np.float32(60)
    score += (rng.uniform(0, 1.5) * rng.standard_normal(7)).astype(np.float32)[lung.lobe]
    extent = rng.uniform(*knobs.extents[rng.choice(len(knobs.extents), p=knobs.extent_weights)])
    level = np.quantile(score, 1 - min(extent, 0.995))
    share = np.clip((score - np.float32(level)) / np.float32(rng.uniform(0.05, 1.0)) + 0.5, 0, 1)
    glass = np.clip(values + np.float32(rng.uniform(*knobs.ground_glass)), None, np.maximum(values, 60))
    mesh = slab.smooth(rng, rng.uniform(2.5, 6)).reshape(-1)[lung.at]
    glass += np.float32(rng.uniform(0, 90)) * mesh
    dense = np.full_like(values, rng.uniform(*knobs.consolidation))
    if rng.random() < 0.3:  # air bronchograms: what was a vessel now holds air
        dense[values > -500] = -850
    core = np.clip((score - np.float32(level + rng.choice((-0.3, 0.3, 0.8, 1.6, 9.0)))) * 3, 0, 1)
    target = glass + core * (dense - glass)
    values += share * (target - values)


def _nodules(lung: _Lung, values: FloatArray, rng: np.random.Generator, knobs: DiseaseKnobs) -> None:
    for _ in range(int(rng.integers(1, 5))):
        middle = rng.integers(len(lung.at))
        radius = np.float32(rng.uniform(*knobs.nodule_mm))
        away = np.sqrt(
            np.square(lung.z - lung.z[middle]) + np.square(lung.y - lung.y[middle]) + np.square(lung.x - lung.x[middle])
        )
        share = np.clip((radius - away) / 2 + 0.5, 0, 1)
        values += share * (np.float32(rng.uniform(-500, 120)) - values)


def _effusion(slab: Slab, lung: _Lung, rng: np.random.Generator, knobs: DiseaseKnobs) -> None:
    """Fluid behind and around a lung; it is background."""
    uneven = slab.smooth(rng, 25.0).reshape(-1)[lung.at]
    for side in ((1, 2, 3), (4, 5)):
        mine = np.flatnonzero(np.isin(lung.lobe, side))
        if len(mine) < 20 or rng.random() < 0.4:
            continue
        score = lung.y[mine] - np.float32(rng.uniform(0.5, 4)) * lung.depth[mine] + 8 * uneven[mine]
        fluid = mine[score > np.quantile(score, 1 - rng.uniform(*knobs.effusion))]
        slab.hu.reshape(-1)[lung.at[fluid]] = rng.uniform(-10, 45)
        slab.lobes.reshape(-1)[lung.at[fluid]] = 0


def _gas(slab: Slab, rng: np.random.Generator) -> None:
    """Bubbles in soft tissue, as in stomach and bowel, or in the oesophagus."""
    soft = np.flatnonzero((slab.lobes == 0) & (slab.hu > -30) & (slab.hu < 200))
    if len(soft) < 100:
        return
    shape = slab.hu.shape
    for _ in range(int(rng.integers(1, 6))):
        z, y, x = np.unravel_index(int(soft[rng.integers(len(soft))]), shape)
        ry, rx = np.exp(rng.uniform(np.log(3), np.log(32), 2))
        rows, columns = (int(np.ceil(r / PIXEL_MM)) for r in (ry, rx))
        box = (
            slice(max(0, z - int(rng.integers(0, 3))), z + int(rng.integers(1, 4))),
            slice(max(0, y - rows), y + rows + 1),
            slice(max(0, x - columns), x + columns + 1),
        )
        yy, xx = np.ogrid[box[1].start : min(box[1].stop, shape[1]), box[2].start : min(box[2].stop, shape[2])]
        inside = ((yy - y) * PIXEL_MM / ry) ** 2 + ((xx - x) * PIXEL_MM / rx) ** 2 < 1
        here = slab.hu[box]
        here[inside[None] & (slab.lobes[box] == 0) & (here > -400)] = rng.uniform(-1024, -850)
