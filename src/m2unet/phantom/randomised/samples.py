"""Training samples without end: sample *i* of a seed is always the same, whatever was drawn before."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from m2unet.config import WindowConfig
from m2unet.ct.window import apply_window
from m2unet.phantom.grid import FloatArray
from m2unet.phantom.randomised.disease import DiseaseKnobs, add_disease
from m2unet.phantom.randomised.pool import Chest, ChestPool
from m2unet.phantom.randomised.scanner import ScannerKnobs, scan_slab
from m2unet.phantom.randomised.space import Slab, SpaceKnobs, cut_slab
from m2unet.phantom.randomised.tissues import TissueKnobs, paint_tissues

REACH = 3
"""Slices on each side that the network sees with the one it segments, where nothing else is asked for."""


@dataclass(frozen=True)
class Look:
    """How a slab looks; without tissues or disease the chest's own stay as they are."""

    tissues: TissueKnobs | None = field(default_factory=TissueKnobs)
    disease: DiseaseKnobs | None = field(default_factory=DiseaseKnobs)
    scanner: ScannerKnobs = field(default_factory=ScannerKnobs)


CALM = Look(
    TissueKnobs(
        lung=(-940, -760),
        mottle=(0, 15),
        bare_mm=(3.0, 14.0),
        vessel_gamma=(0.7, 1.4),
        small_vessels=(50, 250),
        fissure=(30, 220),
        no_fissure_share=0.08,
        fissure_mm=(1.2, 4.0),
        incomplete=(0.0, 0.4),
        emphysema_share=0.05,
    ),
    DiseaseKnobs(
        opacity_share=0.4,
        extents=((0.01, 0.1), (0.1, 0.3)),
        extent_weights=(0.7, 0.3),
        lobe_share=0.0,
        nodule_share=0.1,
        reticulation_share=0.05,
        effusion_share=0.04,
    ),
    ScannerKnobs(
        motion_share=0.05,
        blur_mm=(0.3, 1.5),
        sharp_share=0.25,
        sharp=(0.2, 0.8),
        noise_hu=(1.0, 30.0),
        streak_share=0.08,
        streak_hu=(5.0, 25.0),
        ring_share=0.03,
        ring_hu=(5.0, 15.0),
        cupping_share=0.1,
        circle_share=0.2,
        cut_share=0.05,
    ),
)
"""An everyday scan: air-filled lungs with fissures to be seen, little disease, moderate noise."""


@dataclass(frozen=True)
class Knobs:
    """Everything that is drawn for a slab of a chest.

    Attributes:
        space: where slabs are cut.
        look: far beyond reality.
        calm: of an everyday scan: only where fissures can be seen the network learns to follow them.
        calm_share: share of slabs with the calm look.
        edge_share: share of slabs at an end of the scan: slices beyond it repeat the last one.
        single_share: share of slabs whose slices stand alone, as in a scan of one or two slices.
    """

    space: SpaceKnobs = field(default_factory=SpaceKnobs)
    look: Look = field(default_factory=Look)
    calm: Look = CALM
    calm_share: float = 0.6
    edge_share: float = 0.12
    single_share: float = 0.12


@dataclass(frozen=True)
class Samples:
    """The middle slices of one slab with their neighbours.

    Attributes:
        images: ``[n, 2 context + 1, y, x]`` float32 in [0, 1], the slice to segment in the middle channel.
        labels: ``[n, y, x]`` uint8: lobes, 6 airway.
        heights: ``[n]`` float32, -1 at the lungs' base, 1 at their apex.
        fissures: ``[n, y, x]`` bool, the sheets of fissures in air-filled lung, however faint they are; None where
            slabs keep their own tissues, and nobody knows.
    """

    images: FloatArray
    labels: NDArray[np.uint8]
    heights: FloatArray
    fissures: NDArray[np.bool_] | None = None


SHEET = 0.4
"""Least share of a fissure's brightness that counts as the fissure."""
FILLED_HU = -500.0
"""Denser lung hides its fissures."""


def invent_slab(chest: Chest, rng: np.random.Generator, knobs: Knobs | None = None) -> Slab:
    """Cut a slab from a chest and invent everything about its look."""
    k = knobs or Knobs()
    return dress_slab(cut_slab(chest, rng, k.space), rng, k)


def dress_slab(slab: Slab, rng: np.random.Generator, knobs: Knobs) -> Slab:
    """Invent the look of a slab that is cut; returns it, its thin slices averaged."""
    look = knobs.calm if rng.random() < knobs.calm_share else knobs.look
    if look.tissues is not None:
        paint_tissues(slab, rng, look.tissues)
    if look.disease is not None:
        add_disease(slab, rng, look.disease)
    slab = slab.thick()
    scan_slab(slab, rng, look.scanner)
    return slab


def draw_samples(
    pool: ChestPool,
    seed: int,
    number: int,
    window: WindowConfig,
    knobs: Knobs | None = None,
    *,
    context: int = REACH,
) -> Samples:
    """Samples of slab ``number`` of this seed.

    Args:
        pool: the chests.
        seed, number: all chance.
        window: of the network.
        knobs: what is drawn; the defaults if None.
        context: neighbours on each side.
    """
    k = knobs or Knobs()
    rng = np.random.default_rng([seed, 7, number])
    slab = invent_slab(pool[int(rng.integers(len(pool)))], rng, k)
    images = apply_window(slab.hu, window)
    count = len(images)
    low, high = 0, count - 1
    if rng.random() < k.edge_share:
        low, high = (
            (0, int(rng.integers(context, count))) if rng.random() < 0.5 else (int(rng.integers(count - context)), high)
        )
    alone = rng.random() < k.single_share
    chosen = [i for i in range(context, count - context) if low <= i <= high] or [min(max(low, context), high)]
    offsets = np.arange(-context, context + 1) * (not alone)
    stacks = np.stack([images[np.clip(i + offsets, low, high)] for i in chosen])
    fissures = None if slab.sheet is None else ((slab.sheet > SHEET) & (slab.hu < FILLED_HU))[chosen]
    return Samples(stacks, slab.lobes[chosen], slab.height[chosen], fissures)
