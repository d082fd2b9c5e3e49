"""Chests whose header is wrong: phantoms and real scans with their array turned and flipped under it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from m2unet.ct.volume import Volume, from_source
from m2unet.phantom.cohort import CohortConfig, plan_cohort
from m2unet.phantom.scan import PhantomScan, make_scan

Turn = tuple[tuple[int, ...], tuple[int, ...]]
TRUE: Turn = ((0, 1, 2), (1, 1, 1))
MIRRORED: Turn = ((0, 1, 2), (1, 1, -1))


@lru_cache
def phantom(patient: int = 0, seed: int = 3) -> PhantomScan:
    """A small phantom with disease and skeleton, 160 x 160, slices of some 10 mm."""
    plan = plan_cohort(CohortConfig(size="small", scans=8, patients=4, severe_fraction=0.5), seed=seed)
    name = next(s.scan_id for s in plan.scans if s.patient_id == plan.patients[patient].patient_id)
    return make_scan(plan, name)


def turns() -> Iterator[Turn]:
    """All 48 ways in which three axes can be exchanged and reversed, the true one first."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield order, signs


def turned(volume: Volume, turn: Turn) -> Volume:
    """The body turned, the header left as if it were not."""
    order, signs = turn
    array = volume.array.transpose(order)[:: signs[0], :: signs[1], :: signs[2]]
    z, y, x = (volume.spacing_mm[axis] for axis in order)
    return from_source(np.ascontiguousarray(array), (z, y, x))
