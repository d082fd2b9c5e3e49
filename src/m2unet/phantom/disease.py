"""How much of each lobe is diseased, with what density, and how that rises and resolves over days."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m2unet.anatomy import LOBE_CODES
from m2unet.phantom.severity import severity_score

LobeShares = tuple[float, float, float, float, float]

# Lesion mask codes.
GROUND_GLASS, CONSOLIDATION, CRAZY_PAVING, BAND = 1, 2, 3, 4
LESION_NAMES = {
    GROUND_GLASS: "ground-glass",
    CONSOLIDATION: "consolidation",
    CRAZY_PAVING: "crazy-paving",
    BAND: "band",
}

LOAD_RANGE = (0.004, 0.65)
"""Mean opacified share of the lungs at the peak, log-uniform."""

LEAST_ACTIVITY = 0.45
"""Scans are taken while at least this share of the peak extent is there, so that the label still fits the picture."""

_TILT = np.array([0.75, 0.60, 1.30, 0.75, 1.25])  # lower lobes first, the middle lobe least
_MOST = 0.93  # no lobe is opacified to the last voxel


@dataclass(frozen=True)
class DiseaseState:
    """The disease on one day.

    Attributes:
        extents: opacified share of each lobe, 0-1, in the order RUL RML RLL LUL LLL, bands not counted.
        dense: consolidated share of each lobe, never above its extent.
        bands: mean number of bands a lobe.
    """

    extents: LobeShares
    dense: LobeShares
    bands: float

    @property
    def score(self) -> float:
        """Severity score of this state by :mod:`m2unet.phantom.severity`."""
        return float(severity_score(self.extents, self.dense))


@dataclass(frozen=True)
class Disease:
    """A patient's pneumonia: its peak and its course.

    Attributes:
        peak: the state at the peak; the label rests on it.
        crazy: probability that a ground-glass lesion shows crazy paving.
        central: probability that a lesion lies centrally instead of below the pleura.
        rise_days: from onset to the peak.
        plateau_days: time at the peak.
        half_life_days: of the extent while resolving.
    """

    peak: DiseaseState
    crazy: float
    central: float
    rise_days: float
    plateau_days: float
    half_life_days: float

    def activity(self, day: float) -> float:
        """Share of the peak extent on a day after onset, 0-1: a smooth rise, a plateau, an exponential decline."""
        if day <= 0:
            return 0.0
        if day < self.rise_days:
            t = day / self.rise_days
            return float(t * t * (3 - 2 * t))
        late = max(0.0, day - self.rise_days - self.plateau_days)
        return float(0.5 ** (late / self.half_life_days))

    def window(self, least: float) -> tuple[float, float]:
        """First and last day on which the activity is at least ``least`` (0-1, not included)."""
        rising = 0.5 - np.sin(np.arcsin(1.0 - 2.0 * least) / 3.0)  # root of t * t * (3 - 2 * t) = least
        late = -self.half_life_days * np.log2(least)
        return float(rising * self.rise_days), float(self.rise_days + self.plateau_days + late)

    def day(self, time: float) -> float:
        """The day at a time from 0 to 1 within the window in which scans are taken."""
        first, last = self.window(LEAST_ACTIVITY)
        return first + (last - first) * time

    def at(self, day: float) -> DiseaseState:
        """The state on a day after onset. Consolidation comes later and goes sooner than ground-glass; bands stay."""
        now = self.activity(day)
        late = float(np.clip((day - self.rise_days) / 10.0, 0.0, 1.0))
        return DiseaseState(
            extents=_shares(np.asarray(self.peak.extents) * now),
            dense=_shares(np.asarray(self.peak.dense) * now**1.5),
            bands=self.peak.bands * now * (0.6 + 0.8 * late),
        )


def draw_disease(rng: np.random.Generator, load_range: tuple[float, float] = LOAD_RANGE) -> Disease:
    """Draw a pneumonia of any severity.

    Args:
        rng: source of randomness; the same number of deviates is drawn whatever the outcome.
        load_range: bounds of the mean opacified share at the peak.
    """
    low, high = np.log(load_range)
    load = float(np.exp(rng.uniform(low, high)))
    affected = rng.random(5) < 0.45 + 5.0 * load
    extents = np.minimum(load * _TILT * np.exp(rng.normal(0.0, 0.35, 5)), _MOST) * affected
    density = np.clip(0.12 + 0.30 * load + rng.normal(0.0, 0.08) + rng.normal(0.0, 0.05, 5), 0.0, 0.7)
    peak = DiseaseState(_shares(extents), _shares(extents * density), bands=float(0.3 + 2.0 * min(load, 0.4)))
    return Disease(
        peak=peak,
        crazy=float(rng.uniform(0.0, 0.45)),
        central=float(rng.uniform(0.02, 0.22)),
        rise_days=float(rng.uniform(6.0, 10.0)),
        plateau_days=float(rng.uniform(3.0, 7.0)),
        half_life_days=float(rng.uniform(9.0, 18.0)),
    )


def _shares(values: np.ndarray) -> LobeShares:
    a, b, c, d, e = (float(value) for value in values)
    return a, b, c, d, e


__all__ = [
    "BAND",
    "CONSOLIDATION",
    "CRAZY_PAVING",
    "GROUND_GLASS",
    "LESION_NAMES",
    "LOBE_CODES",
    "Disease",
    "DiseaseState",
    "draw_disease",
]
