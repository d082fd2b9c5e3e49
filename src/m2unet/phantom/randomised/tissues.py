"""The look of healthy tissue: a new density for each kind, lungs with vessels and fissures of any visibility."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri

from m2unet.phantom.grid import FloatArray
from m2unet.phantom.randomised.anatomy import BASE_HU
from m2unet.phantom.randomised.space import PIXEL_MM, Slab

Range = tuple[float, float]


@dataclass(frozen=True)
class TissueKnobs:
    """Ranges of uniform draws, in HU where nothing else is said.

    Attributes:
        air: air outside, in the airways and the bowel.
        fat, mediastinum, muscle, organ, liver: soft tissue.
        blood: without contrast agent; with it (``contrast_share`` of slabs) from ``contrast``.
        marrow, cortex: bone.
        lung: lung between the vessels, from emphysema to breathed out.
        gravity_hu_per_mm: gain towards the back.
        mottle: standard deviation of the lung's smooth unevenness.
        bare_mm: vessels fade within this distance of a fissure.
        vessel_gamma: exponent of the vessels' share of a voxel; above 1 small vessels vanish.
        small_vessels: what vessels too small for the vessel tree add where they are densest; they avoid fissures too.
        fissure: what a fissure's sheet adds; none in ``no_fissure_share`` of slabs.
        fissure_mm: half width of its profile.
        incomplete: share of each fissure without a sheet.
        emphysema_share: share of slabs with holes of nearly pure air.
    """

    air: Range = (-1024, -960)
    fat: Range = (-140, -50)
    mediastinum: Range = (-90, 50)
    muscle: Range = (10, 90)
    organ: Range = (0, 110)
    liver: Range = (10, 170)
    blood: Range = (20, 80)
    contrast: Range = (90, 480)
    contrast_share: float = 0.35
    marrow: Range = (80, 420)
    cortex: Range = (350, 1300)
    lung: Range = (-965, -660)
    gravity_hu_per_mm: Range = (-0.1, 1.2)
    mottle: Range = (0, 40)
    bare_mm: Range = (0.5, 9.0)
    vessel_gamma: Range = (0.7, 2.0)
    small_vessels: Range = (0, 250)
    fissure: Range = (20, 330)
    no_fissure_share: float = 0.2
    fissure_mm: Range = (0.7, 3.2)
    incomplete: Range = (0.0, 0.6)
    emphysema_share: float = 0.1


def paint_tissues(slab: Slab, rng: np.random.Generator, knobs: TissueKnobs) -> None:
    """Give every tissue of a slab a new density, in place."""
    blood = rng.uniform(*(knobs.contrast if rng.random() < knobs.contrast_share else knobs.blood))
    lung = float(rng.uniform(*knobs.lung))
    inside = np.flatnonzero((slab.lobes > 0) & (slab.lobes < 6))
    slab.sheet = np.zeros(slab.hu.shape, np.float32)
    values = _lungs(slab, inside, (lung, float(blood)), rng, knobs)
    table = _table(rng, knobs, float(blood), lung)
    index = np.clip(slab.hu + np.float32(1100), 0, len(table) - 1).astype(np.int32)
    slab.hu = table[index]
    slab.hu.reshape(-1)[inside] = values


def _table(rng: np.random.Generator, knobs: TissueKnobs, blood: float, lung: float) -> FloatArray:
    """New HU for each rendered HU from -1100 on; knots are the values of :mod:`m2unet.phantom.painter`."""
    draw = rng.uniform
    muscle, organ, liver = (draw(*r) for r in (knobs.muscle, knobs.organ, knobs.liver))
    marrow = draw(*knobs.marrow)
    knots = {
        -1000: draw(*knobs.air),
        BASE_HU: lung,
        -102: draw(*knobs.fat),
        -35: draw(*knobs.mediastinum),
        0: muscle,
        25: draw(0, 60),
        40: organ,
        42: blood,
        46: blood,
        50: muscle,
        58: liver,
        80: draw(40, 140),
        105: draw(60, 200),
        190: marrow,
        620: max(marrow, draw(*knobs.cortex)),
    }
    at = np.arange(-1100, 1400, dtype=np.float64)
    return np.interp(at, list(knots), list(knots.values())).astype(np.float32)


def _lungs(
    slab: Slab, inside: NDArray[np.intp], levels: tuple[float, float], rng: np.random.Generator, knobs: TissueKnobs
) -> FloatArray:
    """HU of the lungs' voxels; ``levels`` are lung and blood."""
    lung, blood = np.float32(levels[0]), np.float32(levels[1])
    rows, columns = slab.hu.shape[1:]
    y = ((inside // columns) % rows).astype(np.float32)
    gap = slab.fissure_mm.reshape(-1)[inside]
    base = lung + np.float32(rng.uniform(*knobs.gravity_hu_per_mm) * PIXEL_MM) * (y - np.float32(rows / 2))
    base += np.float32(rng.uniform(*knobs.mottle)) * slab.smooth(rng, rng.uniform(8, 40)).reshape(-1)[inside]
    if rng.random() < knobs.emphysema_share:
        holes = slab.smooth(rng, rng.uniform(5, 18)).reshape(-1)[inside] > rng.uniform(0.3, 1.8)
        base = np.where(holes, np.float32(-985), base)
    base = np.clip(base, -1000, -300)
    share = np.clip((slab.hu.reshape(-1)[inside] - np.float32(BASE_HU)) / np.float32(42 - BASE_HU), 0, 1.2)
    near = np.clip(gap / np.float32(rng.uniform(*knobs.bare_mm)), 0, 1)
    near = np.where(slab.pleura_mm.reshape(-1)[inside] > 3, near, 1)
    base += np.float32(rng.uniform(*knobs.small_vessels)) * _specks(slab.hu.shape, rng).reshape(-1)[inside] * near
    share *= near
    share **= np.float32(rng.uniform(*knobs.vessel_gamma))
    value = base + share * (blood - base)
    if rng.random() >= knobs.no_fissure_share:
        sheet = np.exp(-np.square(gap / np.float32(rng.uniform(*knobs.fissure_mm))))
        there = slab.smooth(rng, 25.0).reshape(-1)[inside]
        cut = _normal_quantile(float(rng.uniform(*knobs.incomplete)))
        sheet *= np.clip((there - np.float32(cut)) * 4 + 0.5, 0, 1)
        value += sheet * np.float32(rng.uniform(*knobs.fissure)) * np.clip(-value / 800, 0, 1)
        assert slab.sheet is not None
        slab.sheet.reshape(-1)[inside] = sheet
    return np.asarray(value, np.float32)


def _specks(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Small bright spots on one pixel of ten, 0 between."""
    sigma = rng.uniform(0.5, 1.1)
    field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0, sigma, sigma), truncate=2.5)
    field /= np.float32(field[0].std())
    return np.asarray(np.clip(field - np.float32(1.2), 0, 1.5), np.float32)


def _normal_quantile(share: float) -> float:
    return float(ndtri(max(share, 1e-3)))
