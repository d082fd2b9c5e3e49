"""Two chests, drawn once."""

from __future__ import annotations

import pytest

from m2unet.phantom.randomised.pool import ChestPool, build_pool


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ChestPool:
    """A pool of two chests of seed 5."""
    return build_pool(tmp_path_factory.mktemp("pool"), 2, 5)
