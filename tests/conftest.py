"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two test processes on two cores: threads of their own would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.network", "tests.small_cohort"]

DATA = Path(os.environ.get("M2UNET_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real CTs; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"the real CTs are not at {DATA}; set M2UNET_TEST_DATA to their folder")
    return DATA
