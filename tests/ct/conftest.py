"""The real chest CT, read once for the whole room."""

from __future__ import annotations

from pathlib import Path

import pytest

from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume


@pytest.fixture(scope="session")
def nlst(real_data: Path) -> Volume:
    """A whole chest, 143 slices of 512 x 512, JPEG-LS; not to be changed."""
    volume = read_scan(real_data / "nlst-ct-dicom")
    volume.array.flags.writeable = False
    return volume
