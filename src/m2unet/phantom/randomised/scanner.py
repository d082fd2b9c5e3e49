"""What the scanner does to a slab: blur, motion, kernel, noise, streaks, rings, cupping, table, field of view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from m2unet.phantom.grid import FloatArray
from m2unet.phantom.randomised.space import PIXEL_MM, Slab

Range = tuple[float, float]


@dataclass(frozen=True)
class ScannerKnobs:
    """Shares are of slabs.

    Attributes:
        table_share: with a table below the patient.
        metal_share: with small pieces of metal and their streaks.
        motion_share: with doubled contours, shifted by up to ``motion_mm``.
        thick_share: with slices that overlap their neighbours.
        blur_share, blur_mm: with blur in the plane.
        sharp_share, sharp: with an edge-enhancing kernel.
        noise_hu: standard deviation of the noise; its square root is drawn uniformly.
        grain_mm: width of the noise's grain.
        streak_share, streak_hu: with streaks from side to side, as between the shoulders.
        ring_share, ring_hu: with rings.
        cupping_share, cupping_hu: with smooth shading (beam hardening).
        scale, offset_hu: error of calibration.
        circle_share: with a round field of view.
        circle_mm: its radius.
        cut_share: with one or two sides of the picture cut off.
        padding_hu: values beyond the field of view.
    """

    table_share: float = 0.5
    metal_share: float = 0.06
    motion_share: float = 0.2
    motion_mm: float = 10.0
    thick_share: float = 0.25
    blur_share: float = 0.6
    blur_mm: Range = (0.3, 2.6)
    sharp_share: float = 0.35
    sharp: Range = (0.2, 1.6)
    noise_hu: Range = (1.0, 100.0)
    grain_mm: Range = (0.2, 2.6)
    streak_share: float = 0.25
    streak_hu: Range = (5.0, 90.0)
    ring_share: float = 0.1
    ring_hu: Range = (5.0, 50.0)
    cupping_share: float = 0.3
    cupping_hu: Range = (-60.0, 60.0)
    scale: Range = (0.96, 1.04)
    offset_hu: Range = (-25.0, 25.0)
    circle_share: float = 0.35
    circle_mm: Range = (115.0, 230.0)
    cut_share: float = 0.12
    padding_hu: tuple[float, ...] = (-1024.0, -1024.0, -2000.0, -1000.0, -3024.0, 0.0)


def scan_slab(slab: Slab, rng: np.random.Generator, knobs: ScannerKnobs) -> None:
    """Scan a slab, in place; what the field of view leaves out becomes background."""
    if rng.random() < knobs.table_share:
        _table(slab.hu, rng)
    if rng.random() < knobs.metal_share:
        _metal(slab.hu, rng)
    _soften(slab, rng, knobs)
    _disturb(slab.hu, rng, knobs)
    slab.hu *= np.float32(rng.uniform(*knobs.scale))
    slab.hu += np.float32(rng.uniform(*knobs.offset_hu))
    _crop(slab, rng, knobs)


def _soften(slab: Slab, rng: np.random.Generator, knobs: ScannerKnobs) -> None:
    """Motion, thickness, blur and kernel."""
    if rng.random() < knobs.motion_share:
        reach = rng.uniform(-knobs.motion_mm, knobs.motion_mm, 2) / PIXEL_MM
        moved = np.roll(slab.hu, tuple(np.rint(reach).astype(int)), axis=(1, 2))
        slab.hu += np.float32(rng.uniform(0.15, 0.5)) * (moved - slab.hu)
    if rng.random() < knobs.thick_share:
        side = np.float32(rng.uniform(0.03, 0.22))
        padded = np.pad(slab.hu, ((1, 1), (0, 0), (0, 0)), mode="edge")
        slab.hu = (1 - 2 * side) * slab.hu + side * (padded[:-2] + padded[2:])
    if rng.random() < knobs.blur_share:
        slab.hu = _blurred(slab.hu, rng.uniform(*knobs.blur_mm))
    if rng.random() < knobs.sharp_share:
        slab.hu += np.float32(rng.uniform(*knobs.sharp)) * (slab.hu - _blurred(slab.hu, rng.uniform(1.6, 4)))


def _disturb(hu: FloatArray, rng: np.random.Generator, knobs: ScannerKnobs) -> None:
    """Noise, streaks, rings and shading."""
    low, high = np.sqrt(knobs.noise_hu)
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    grain = rng.uniform(*knobs.grain_mm)
    if grain > 0.8:
        noise = _blurred(noise, grain)
        noise /= max(float(noise[0].std()), 1e-3)
    hu += np.float32(rng.uniform(low, high) ** 2) * noise
    if rng.random() < knobs.streak_share:
        streaks = gaussian_filter1d(rng.standard_normal(hu.shape, dtype=np.float32), rng.uniform(6, 40), axis=2)
        streaks /= max(float(streaks.std()), 1e-3)
        hu += np.float32(rng.uniform(*knobs.streak_hu)) * streaks
    rows, columns = hu.shape[1:]
    y = np.arange(rows, dtype=np.float32)[:, None] - np.float32(rows / 2 + rng.normal(0, 5))
    x = np.arange(columns, dtype=np.float32)[None] - np.float32(columns / 2 + rng.normal(0, 5))
    radius = np.sqrt(y * y + x * x)
    if rng.random() < knobs.ring_share:
        rings = rng.standard_normal(int(radius.max()) + 2).astype(np.float32)
        hu += np.float32(rng.uniform(*knobs.ring_hu)) * rings[radius.astype(np.int32)]
    if rng.random() < knobs.cupping_share:
        hu += np.float32(rng.uniform(*knobs.cupping_hu)) * (1 - np.square(radius / np.float32(80)))


def _blurred(hu: FloatArray, mm: float) -> FloatArray:
    sigma = mm / PIXEL_MM
    return np.asarray(gaussian_filter(hu, (0, sigma, sigma), truncate=2.5), np.float32)


def _table(hu: FloatArray, rng: np.random.Generator) -> None:
    """One or two bent plates below the body, the same in all slices."""
    rows, columns = hu.shape[1:]
    body = np.flatnonzero((hu[len(hu) // 2] > -500).any(axis=1))
    back = int(body[-1]) if len(body) else rows - 20
    y = np.arange(rows, dtype=np.float32)[:, None]
    x = np.arange(columns, dtype=np.float32)[None] - np.float32(columns / 2)
    top = back + rng.uniform(0, 8) + rng.uniform(-0.004, 0.001) * x * x
    for gap in (0.0, rng.uniform(4, 20)):
        plate = (np.abs(y - top - gap) < rng.uniform(0.5, 1.6)) & (np.abs(x) < rng.uniform(70, 120))
        hu[:, plate] = np.maximum(hu[:, plate], np.float32(rng.uniform(-900, 250)))
    if rng.random() < 0.5:  # a mattress or blanket
        foam = (y > top) & (y < top + gap) & (hu[len(hu) // 2] < -800)
        hu[:, foam] = np.maximum(hu[:, foam], np.float32(rng.uniform(-990, -850)))


def _metal(hu: FloatArray, rng: np.random.Generator) -> None:
    rows, columns = hu.shape[1:]
    for _ in range(int(rng.integers(1, 5))):
        z, y, x = int(rng.integers(len(hu))), int(rng.integers(4, rows - 4)), int(rng.integers(4, columns - 4))
        hu[z : z + 2, y - 1 : y + 2, x - 1 : x + 2] = 2500
        hu[z : z + 2, y] += np.float32(rng.uniform(-300, 200))


def _crop(slab: Slab, rng: np.random.Generator, knobs: ScannerKnobs) -> None:
    """Round and cut fields of view."""
    rows, columns = slab.hu.shape[1:]
    beyond = np.zeros((rows, columns), dtype=bool)
    if rng.random() < knobs.circle_share:
        radius = rng.uniform(*knobs.circle_mm) / PIXEL_MM
        y = np.arange(rows)[:, None] - rows / 2 - rng.normal(0, 5)
        x = np.arange(columns)[None] - columns / 2 - rng.normal(0, 5)
        beyond |= y * y + x * x > radius * radius
    if rng.random() < knobs.cut_share:
        for _ in range(int(rng.integers(1, 3))):
            axis, width = int(rng.integers(2)), int(rng.integers(4, 50))
            cut = slice(None, width) if rng.random() < 0.5 else slice(-width, None)
            beyond[(slice(None), cut) if axis else (cut, slice(None))] = True
    slab.hu[:, beyond] = rng.choice(knobs.padding_hu)
    slab.lobes[:, beyond] = 0
