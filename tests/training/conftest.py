"""A cohort small enough to train on in seconds: severe scans are striped, each lobe has its own grey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from m2unet.config import Config, load_config

SMALL = [
    "bag.size=4",
    "bag.patch=16",
    "model.width=4",
    "model.deep_width=8",
    "model.instance_concepts=8",
    "model.bag_concepts=4",
    "model.classes=6",
    "train.epochs=2",
    "train.bags_per_step=4",
    "train.lambda_mil=1.0",
]


@dataclass(frozen=True)
class TinyScan:
    """One scan in memory, as the bags room wants it."""

    scan_id: str
    array: NDArray[np.int16]
    lobes: NDArray[np.uint8] | None
    severity: int

    @property
    def references(self) -> Mapping[str, NDArray[np.float32] | None]:
        """The whole array as body, no lungs."""
        high = np.asarray(self.array.shape, dtype=np.float32)
        return {"body": np.stack([np.zeros(3, dtype=np.float32), high]), "lungs": None}


class TinyStore:
    """Scans by name."""

    def __init__(self, scans: int = 10, masked: int = 5) -> None:
        self.scans = {f"s{i}": _scan(i, masked=i < masked) for i in range(scans)}

    def open(self, scan_id: str) -> TinyScan:
        """One scan."""
        return self.scans[scan_id]


def _scan(number: int, *, masked: bool) -> TinyScan:
    rng = np.random.default_rng(number)
    severity = number % 2
    lobes = np.ones((6, 24, 24), dtype=np.uint8)
    lobes[:, :12, 12:], lobes[:, 12:, :12], lobes[:, 12:, 12:] = 2, 3, 4
    array = rng.normal(-1000, 30, (6, 24, 24)) + 200.0 * lobes
    array[:, ::4] += 100 * severity
    return TinyScan(f"s{number}", array.astype(np.int16), lobes if masked else None, severity)


@pytest.fixture
def store() -> TinyStore:
    """Ten scans, five with lobes."""
    return TinyStore()


@pytest.fixture
def config() -> Config:
    """A configuration that trains in a second."""
    return load_config("paper", SMALL)
