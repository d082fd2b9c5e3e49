"""What varies from one phantom chest to the next, and how it is drawn.

The means and spreads named "51 lobe maps" were measured with :mod:`m2unet.phantom.measure` on the public lobe maps of
51 LUNA16 scans (H. Tang et al., *Automatic Pulmonary Lobe Segmentation Using Deep Learning*, ISBI 2019); only such
summary figures are kept here. "Anatomy" means textbook sizes of adults, rounded. Lengths scaled "by height" are
fractions of ``lung_height_mm``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Sex = Literal["F", "M"]


@dataclass(frozen=True)
class ObliqueFissure:
    """The major fissure of one lung, in lung heights: offset from the 45 degree plane that rises to the back.

    With ``t = (z + y) / sqrt 2 - 0.35`` along the fissure and ``s = |x| - 0.28`` from the midline, the fissure lies at
    ``(z - y) / sqrt 2 = level + slope t + bend t^2 + tilt s + bow s^2 + twist s t``.
    """

    level: float
    slope: float
    bend: float
    tilt: float
    bow: float
    twist: float


@dataclass(frozen=True)
class MinorFissure:
    """The horizontal fissure of the right lung, in lung heights.

    With ``s = |x| - 0.28`` and ``f = y + 0.15``: ``z = level + tilt s + bow s^2 + slope f + bend f^2``.
    """

    level: float
    tilt: float
    bow: float
    slope: float
    bend: float


@dataclass(frozen=True)
class AnatomyParameters:
    """One chest. Means and spreads are those of :func:`draw_anatomy`.

    Attributes:
        seed: seed of everything too small to name (vessel tree, texture, bowel loops).
        sex: F or M; sets breasts and the mean sizes.
        arms_up: arms above the head, else beside the chest.
        lung_height_mm: lowest to highest point of the lungs; 263 ± 30 (51 lobe maps).
        half_width_mm: half of both lungs' width; 139 ± 13 (51 lobe maps).
        half_depth_mm: half of the lungs' depth; 98 ± 10 (51 lobe maps).
        squareness: exponent of the chest's cross-section; 2.35 ± 0.12 (51 lobe maps, slice areas).
        taper: narrowing of the chest from the level of the domes to the apex; 0 ± 0.05 (51 lobe maps).
        lean: how far the upper chest's front lies behind the average, by half depth; 0 ± 0.06 (51 lobe maps).
        dome_right, dome_left: height of the diaphragm's top by lung height; 0.29 ± 0.06, 0.26 ± 0.07 (51 lobe maps).
        dome_flatness: exponent with which the dome falls to the chest wall; 5 ± 0.8 (51 lobe maps).
        sulcus_front: height of the diaphragm's front edge by lung height; 0.17 ± 0.03 (51 lobe maps).
        left_rise_mm: lowest point of the left lung above that of the right; 3 ± 8 mm (51 lobe maps).
        heart_width: heart's width over the chest's; 0.46 ± 0.03 (anatomy, inspiration).
        heart_shift: share of the heart's width right of the midline; 0.31 ± 0.03 (anatomy).
        mediastinum_width_mm: half width of the upper mediastinum; 31 ± 3 mm (anatomy).
        oblique_right, oblique_left, minor: the fissures (51 lobe maps).
        fissure_incomplete: inner share of each fissure where its sheet is not seen; 0.15 ± 0.12, at least 0 (anatomy).
        fissure_waves_mm: standard deviation of each fissure's undulation; 2.0 ± 0.6 mm (51 lobe maps).
        carina: height of the carina by lung height; 0.62 ± 0.03 (51 lobe maps).
        trachea_mm: radius of the tracheal lumen; 8.5 ± 0.9 mm, women 7.5 (anatomy).
        fat_mm: fat under the skin; log-normal about 14 mm, women 18 (anatomy).
        muscle_mm: muscle and rib layer between pleura and fat; 17 ± 2.5 mm (anatomy).
        rotation_degrees: turn of the patient about the long axis; 0 ± 3.
        scoliosis_mm: sideways swing of the spine and chest; 0 ± 3 mm.
        asymmetry: left half wider by this share; 0 ± 0.02.
        lung_hu: HU of lung between the vessels at full breath; -890 ± 25 (NLST scan -943; spread assumed).
        gravity_hu_per_mm: density gain towards the back; 0.15 ± 0.09, at least 0 (NLST scan 0.01; spread assumed).
        lobar_roots: how far above and below the hilum the lobes' vessels and bronchi leave, by lung height; 0, all at
            one place, in cohorts.
        missing_lobe: code of a resected lobe whose room its neighbour takes, 0 none.
    """

    seed: int
    sex: Sex
    arms_up: bool
    lung_height_mm: float
    half_width_mm: float
    half_depth_mm: float
    squareness: float
    taper: float
    lean: float
    dome_right: float
    dome_left: float
    dome_flatness: float
    sulcus_front: float
    left_rise_mm: float
    heart_width: float
    heart_shift: float
    mediastinum_width_mm: float
    oblique_right: ObliqueFissure
    oblique_left: ObliqueFissure
    minor: MinorFissure
    fissure_incomplete: float
    fissure_waves_mm: float
    carina: float
    trachea_mm: float
    fat_mm: float
    muscle_mm: float
    rotation_degrees: float = 0.0
    scoliosis_mm: float = 0.0
    asymmetry: float = 0.0
    lung_hu: float = -890.0
    gravity_hu_per_mm: float = 0.15
    lobar_roots: float = 0.0
    missing_lobe: int = 0


def draw_anatomy(rng: np.random.Generator, *, sex: Sex | None = None, arms_up: bool | None = None) -> AnatomyParameters:
    """Draw one chest.

    Args:
        rng: the only source of chance.
        sex: F or M; drawn evenly when None.
        arms_up: drawn (four in five up) when None.
    """
    drawn_sex: Sex = "F" if rng.random() < 0.5 else "M"
    drawn_up = bool(rng.random() < 0.8)
    sex = sex or drawn_sex
    arms_up = drawn_up if arms_up is None else arms_up

    def normal(mean: float, sd: float, limit: float = 2.3) -> float:
        return mean + sd * float(np.clip(rng.standard_normal(), -limit, limit))

    body, build = normal(0, 1), normal(0, 1)
    male = 1.0 if sex == "M" else -1.0
    height = 270 + 12 * male + 20 * body + normal(0, 16)
    tall = (height - 270) / 29
    dome = normal(0.313 - 0.012 * tall, 0.065)
    oblique_right = _oblique(normal, 0.340, (-0.064, -0.16, -0.083, -0.065, -0.42))
    oblique_left = _oblique(normal, 0.317 + 0.024 * tall, (0.176, -0.17, 0.005, 0.165, -0.70))
    rise = oblique_right.level - 0.340
    minor_slope = normal(0.18, 0.26)
    return AnatomyParameters(
        seed=int(rng.integers(2**31)),
        sex=sex,
        arms_up=arms_up,
        lung_height_mm=height,
        half_width_mm=142 + 5 * male + 6.5 * body + 8 * build + normal(0, 7.5),
        half_depth_mm=99.5 + 3.5 * male + 3 * body + 6 * build + normal(0, 6.5),
        squareness=normal(2.28, 0.12),
        taper=normal(0.0, 0.037),
        lean=normal(0.0, 0.06),
        dome_right=dome,
        dome_left=0.75 * dome + normal(0.04 - 0.02 * tall, 0.035),
        dome_flatness=normal(8.0, 1.5),
        sulcus_front=normal(0.29, 0.06),
        left_rise_mm=normal(6, 7),
        heart_width=normal(0.41, 0.035),
        heart_shift=normal(0.30, 0.03),
        mediastinum_width_mm=normal(37, 3.5),
        oblique_right=oblique_right,
        oblique_left=oblique_left,
        minor=_minor(normal, rise, minor_slope),
        fissure_incomplete=max(0.0, normal(0.15, 0.12)),
        fissure_waves_mm=max(0.5, normal(2.6, 0.8)),
        carina=normal(0.71 + 0.75 * rise, 0.05),
        trachea_mm=normal(8.0 + 0.5 * male, 0.8),
        fat_mm=float(np.exp(normal(np.log(16 - 2 * male), 0.35) + 0.15 * build)),
        muscle_mm=normal(16.5 + 1.5 * male, 2.0),
        rotation_degrees=normal(0, 3),
        scoliosis_mm=normal(0, 3),
        asymmetry=normal(0, 0.02),
        lung_hu=normal(-890, 25),
        gravity_hu_per_mm=max(0.0, normal(0.15, 0.09)),
    )


def _oblique(normal: Callable[..., float], level: float, means: tuple[float, ...]) -> ObliqueFissure:
    """Draw a major fissure; a high one falls more to the outside."""
    spreads = (0.13, 0.21, 0.15, 0.33, 0.36)
    drawn = normal(level, 0.035)
    slope, bend, tilt, bow, twist = (normal(mean, sd) for mean, sd in zip(means, spreads, strict=True))
    return ObliqueFissure(drawn, slope, bend, tilt + 2.0 * (drawn - level), bow, twist)


def _minor(normal: Callable[..., float], rise: float, slope: float) -> MinorFissure:
    """Draw the minor fissure; it follows the major one's height, and a steep one starts lower."""
    return MinorFissure(
        level=normal(0.545 + 0.9 * rise - 0.08 * (slope - 0.18), 0.048),
        tilt=normal(0.062, 0.17),
        bow=normal(-0.30, 0.4),
        slope=slope,
        bend=normal(-0.45, 0.42),
    )
