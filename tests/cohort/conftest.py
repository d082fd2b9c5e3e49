"""A plain chest on disk: an elliptical body, two lungs in five lobes, nothing more."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

SHAPE = (16, 72, 84)
SPACING = (15.0, 4.0, 4.0)


def chest(seed: int = 0) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """HU and lobe codes ``[z, y, x]`` in LPS order."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    body = (x / 0.85) ** 2 + (y / 0.8) ** 2 < 1
    lobes = np.zeros(SHAPE, dtype=np.uint8)
    for side, (upper, middle, lower) in ((-1, (1, 2, 3)), (1, (4, 4, 5))):  # the patient's right is at small x
        lung = ((x - 0.4 * side) / 0.28) ** 2 + (y / 0.55) ** 2 + (z / 0.85) ** 2 < 1
        lobes[lung & (z > 0.1)] = upper
        lobes[lung & (z <= 0.1) & (y < 0)] = middle
        lobes[lung & (z <= 0.1) & (y >= 0)] = lower
    noise = np.random.default_rng(seed).normal(0, 15, SHAPE)
    hu = np.where(lobes > 0, -840, np.where(body, 40, -1000)) + noise
    return np.rint(np.clip(hu, -1024, 3000)).astype(np.int16), lobes


def save(array: NDArray[np.generic], path: Path, order: str = "LPS") -> Path:
    """Write an array with the chest's geometry, its axes in another order if asked."""
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((-170.0, -150.0, -400.0))
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, order), str(path))
    return path


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of :func:`cohort`, made once."""
    folder = tmp_path_factory.mktemp("chests")
    lines = ["scan_id,patient_id,image,lobes,severity"]
    for number, patient in enumerate(("p1", "p1", "p2", "p3")):
        hu, lobes = chest(number)
        save(hu, folder / f"{number}.nii", ("LPS", "RAS")[number % 2])
        mask = f"{number}_lobes.nii" if number != 2 else ""
        if mask:
            save(lobes, folder / mask)
        lines.append(f"scan{number},{patient},{number}.nii,{mask},{number % 2}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def cohort(written: Path, tmp_path: Path) -> Path:
    """A manifest of four scans of three patients; the third has no mask."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path / "cohort.csv"
