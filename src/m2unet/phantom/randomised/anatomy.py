"""Chests for domain randomisation: the fitted anatomy with every shape drawn from a wider range than patients have.

A network that has seen more than reality takes reality for one more variant. Sizes stay those of whole chests; their
spread, asymmetry, posture, breath and the course of the fissures go beyond the measured spread.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.random import Generator

from m2unet.phantom.parameters import AnatomyParameters, MinorFissure, ObliqueFissure, draw_anatomy

Range = tuple[float, float]
Fissure = TypeVar("Fissure", ObliqueFissure, MinorFissure)

_HIDDEN = 9.0  # share of the fissure without a sheet: none is drawn, the look of fissures is drawn anew for each slab


@dataclass(frozen=True)
class AnatomyKnobs:
    """How far chests go beyond :func:`m2unet.phantom.parameters.draw_anatomy`.

    Attributes:
        size: standard deviation of the log of height, width and depth, each for itself.
        fissure: range of the extra standard deviation of each term of a fissure, in units of about its spread in
            phantoms; with 0.5 the place and slant of the fissures in a slice spread somewhat more than in 51 lobe maps.
        fissure_level: extra standard deviation of a fissure's height, by lung height, that goes with a spread of 1.
        lobar_roots: range of how far up and down the lungs the lobes' vessels and bronchi leave the hilum.
        fissure_waves_mm: range of the standard deviation of a fissure's undulation.
        rotation_degrees: standard deviation of the turn about the long axis.
        scoliosis_mm: the same of the sideways swing, in one chest of five; 3 mm in the others.
        asymmetry: standard deviation of the left half's extra width.
        obese_share: share of chests with 25-70 mm of fat.
        lean_share: share with 2-6 mm of fat.
        missing_share: share with a resected lobe whose room its neighbour takes.
        arms_up_share: share with arms above the head.
        breathed_out_share: share that is not at full breath: 0.3-1.
        heart: extra standard deviation of the log of the heart's width.
    """

    size: float = 0.06
    fissure: Range = (0.3, 1.3)
    fissure_level: float = 0.03
    lobar_roots: Range = (0.0, 0.14)
    fissure_waves_mm: Range = (0.5, 4.0)
    rotation_degrees: float = 6.0
    scoliosis_mm: float = 16.0
    asymmetry: float = 0.04
    obese_share: float = 0.2
    lean_share: float = 0.2
    missing_share: float = 0.04
    arms_up_share: float = 0.7
    breathed_out_share: float = 0.4
    heart: float = 0.12


def with_fissures(spread: float) -> AnatomyKnobs:
    """The default anatomy, fissures of all chests varying by this much in course and height."""
    return AnatomyKnobs(fissure=(spread, spread))


@dataclass(frozen=True)
class WideChest:
    """A chest and its depth of breath (1 full, 0 breathed out)."""

    parameters: AnatomyParameters
    inspiration: float


_OBLIQUE = {"slope": 0.13, "bend": 0.3, "tilt": 0.15, "bow": 0.33, "twist": 0.36}
_MINOR = {"tilt": 0.17, "bow": 0.4, "slope": 0.26, "bend": 0.42}


def draw_wide_chest(rng: Generator, knobs: AnatomyKnobs | None = None) -> WideChest:
    """Draw one chest.

    Args:
        rng: the only source of chance.
        knobs: how wide; the defaults if None.
    """
    k = knobs or AnatomyKnobs()
    p = draw_anatomy(rng, arms_up=bool(rng.random() < k.arms_up_share))
    fat = p.fat_mm
    build = rng.random()
    if build < k.obese_share:
        fat = float(rng.uniform(25, 70))
    elif build < k.obese_share + k.lean_share:
        fat = float(rng.uniform(2, 6))
    spread = float(rng.uniform(*k.fissure))
    scale = np.exp(k.size * rng.standard_normal(3))
    curved = rng.random() < 0.2
    chest = replace(
        p,
        lung_height_mm=p.lung_height_mm * float(scale[0]),
        half_width_mm=p.half_width_mm * float(scale[1]),
        half_depth_mm=p.half_depth_mm * float(scale[2]),
        heart_width=float(np.clip(p.heart_width * np.exp(k.heart * rng.standard_normal()), 0.3, 0.62)),
        oblique_right=_vary(p.oblique_right, _OBLIQUE, k.fissure_level, spread, rng),
        oblique_left=_vary(p.oblique_left, _OBLIQUE, k.fissure_level, spread, rng),
        minor=_vary(p.minor, _MINOR, k.fissure_level, spread, rng),
        fissure_incomplete=_HIDDEN,
        fissure_waves_mm=float(rng.uniform(*k.fissure_waves_mm)),
        fat_mm=fat,
        rotation_degrees=float(np.clip(k.rotation_degrees * rng.standard_normal(), -18, 18)),
        scoliosis_mm=float((k.scoliosis_mm if curved else 3.0) * np.clip(rng.standard_normal(), -2, 2)),
        asymmetry=float(np.clip(k.asymmetry * rng.standard_normal(), -0.12, 0.12)),
        lung_hu=BASE_HU,
        gravity_hu_per_mm=0.0,
        lobar_roots=float(rng.uniform(*k.lobar_roots)),
        missing_lobe=int(rng.integers(1, 6)) if rng.random() < k.missing_share else 0,
    )
    inspiration = float(rng.uniform(0.3, 1.0)) if rng.random() < k.breathed_out_share else 1.0
    return WideChest(chest, inspiration)


BASE_HU = -900.0
"""Lung between the vessels as it is rendered; each slab draws its own later."""


def _vary(fissure: Fissure, spreads: dict[str, float], level_sd: float, factor: float, rng: Generator) -> Fissure:
    changes = {name: getattr(fissure, name) + factor * sd * _normal(rng) for name, sd in spreads.items()}
    level = fissure.level + factor * level_sd * _normal(rng)
    assert {f.name for f in fields(fissure)} == {"level", *spreads}
    return replace(fissure, level=level, **changes)


def _normal(rng: Generator) -> float:
    return float(np.clip(rng.standard_normal(), -2, 2))
