"""A hand-made chest with known lobes, vessels and lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter


@dataclass(frozen=True)
class Chest:
    """A small chest.

    Attributes:
        array: ``[z, y, x]`` int16 HU.
        lobes: codes 1-5.
        lesions: 0 none, 1 ground glass, 2 consolidation.
        vessels: bool.
        spacing_mm: ``(z, y, x)``.
    """

    array: NDArray[np.int16]
    lobes: NDArray[np.uint8]
    lesions: NDArray[np.uint8]
    vessels: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]


def make_chest(*, lesions: bool, noise_hu: float = 25.0, seed: int = 0) -> Chest:
    """Two lungs of five lobes in soft tissue, with a trachea, a tree of straight vessels, and perhaps three lesions."""
    rng = np.random.default_rng(seed)
    spacing = (4.0, 1.6, 1.6)
    shape = (44, 110, 170)
    z, y, x = np.meshgrid(
        *(np.arange(n) * s - (n - 1) * s / 2 for n, s in zip(shape, spacing, strict=True)), indexing="ij"
    )
    lobes = np.zeros(shape, np.uint8)
    for centre, codes in ((-66, (1, 2, 3)), (66, (4, 4, 5))):
        lung = ((x - centre) / 48) ** 2 + (y / 70) ** 2 + (z / 80) ** 2 < 1
        upper = z - 0.6 * y > 0
        lobes[lung & upper & (z >= 0)] = codes[0]
        lobes[lung & upper & (z < 0)] = codes[1]
        lobes[lung & ~upper] = codes[2]
    hu = np.where((x / 130) ** 2 + (y / 84) ** 2 < 1, 40.0, -1000.0)
    hu[lobes > 0] = -860.0
    truth = np.zeros(shape, np.uint8)
    if lesions:
        blobs = ((-95, 45, -30, 26, 1), (80, 50, -20, 24, 1), (62, -15, 40, 15, 2))
        for cx, cy, cz, radius, kind in blobs:
            truth[(((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) < radius**2) & (lobes > 0)] = kind
        hu[truth == 1], hu[truth == 2] = -560.0, -20.0
    vessels = straight_vessels(rng, shape, spacing) & (lobes > 0)
    hu[vessels] = 40.0
    hu[(x**2 + (y + 10) ** 2 < 9**2) & (z > -20)] = -1000.0
    blurred = gaussian_filter(hu, [0.8 / s for s in spacing]) + rng.normal(0, noise_hu, shape)
    return Chest(np.clip(blurred, -1024, 3000).astype(np.int16), lobes, truth, vessels, spacing)


def straight_vessels(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """Sixteen straight vessels a lung, from the hilum outwards, thinning from 3 to 0.8 mm in radius."""
    vessels = np.zeros(shape, bool)
    half = [(n - 1) * s / 2 for n, s in zip(shape, spacing, strict=True)]
    for side in (-66, 66):
        hilum = np.array([0.0, 0.0, side * 0.2])  # outside the lobes, as masks have it
        for tip in rng.uniform((-60, -50, side - 35), (60, 50, side + 35), (16, 3)):
            for t in np.linspace(0, 1, 60):
                point, radius = hilum + t * (tip - hilum), 3.0 - 2.2 * t
                box = [
                    slice(max(0, int((p - 4 + h) / s)), int((p + 4 + h) / s) + 2)
                    for p, h, s in zip(point, half, spacing, strict=True)
                ]
                grid = np.meshgrid(*(np.arange(b.start, b.stop) for b in box), indexing="ij")
                far = sum((g * s - h - p) ** 2 for g, s, h, p in zip(grid, spacing, half, point, strict=True))
                vessels[tuple(box)] |= (far < radius**2)[: vessels[tuple(box)].shape[0]]
    return vessels


@pytest.fixture(scope="session")
def sick() -> Chest:
    """A chest with two ground-glass lesions and one consolidation."""
    return make_chest(lesions=True)


@pytest.fixture(scope="session")
def healthy() -> Chest:
    """The same chest without lesions."""
    return make_chest(lesions=False)
