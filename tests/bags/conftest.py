"""A scan in memory whose voxels say where they are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray


@dataclass
class MemoryScan:
    """A labelled source of bags."""

    array: NDArray[np.int16]
    lobes: NDArray[np.uint8] | None = None
    references: dict[str, NDArray[np.float32] | None] = field(default_factory=dict)
    scan_id: str = "scan"
    severity: int = 1


def located(depth: int, height: int, width: int) -> MemoryScan:
    """HU z * 1000 + y * 30 + x for small sizes, unique per voxel; lobes the voxel's sum modulo 7."""
    z, y, x = np.indices((depth, height, width))
    return MemoryScan(
        array=(z * 1000 + y * 30 + x).astype(np.int16),
        lobes=((z + y + x) % 7).astype(np.uint8),
        references={
            "body": np.array([[0, 0, 0], [depth, height, width]], dtype=np.float32),
            "lungs": np.array([[1, 2, 3], [depth - 1, height - 2, width - 3]], dtype=np.float32),
        },
    )


@pytest.fixture
def scan() -> MemoryScan:
    return located(5, 30, 24)
