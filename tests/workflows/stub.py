"""Small scans on disk, and a predictor that needs no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import Dataset

from m2unet.ct.volume import Volume
from m2unet.inference.predictor import ModelIdentity, Prediction
from m2unet.inference.severity import SeverityEstimate
from tests.ct.samples import chest, write_series

CHEST = chest((20, 48, 56))
SPACING = (10.0, 8.0, 8.0)
BIRTH = "19640812"


def write_patient(
    folder: Path,
    name: str = "MUSTERFRAU^ERIKA",
    number: str = "4711",
    *,
    change: Callable[[Dataset], None] | None = None,
) -> Path:
    """A DICOM series of a patient; its UIDs follow from name and number."""
    stem = "1.2." + ".".join(str(ord(char)) for char in f"{name[:6]}{number}")

    def named(header: Dataset, index: int) -> None:
        header.PatientName, header.PatientID, header.PatientBirthDate = name, number, BIRTH
        header.StudyInstanceUID, header.SeriesInstanceUID = f"{stem}.1", f"{stem}.2"
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"{stem}.3.{index}"
        if change is not None:
            change(header)

    write_series(folder, CHEST, SPACING, change=named)
    return folder


class StubPredictor:
    """Two halves of the body as two lobes, a severity from the mean HU; raises what it is told to.

    Args:
        errors: raised in turn, one a scan; None predicts.
    """

    def __init__(self, *errors: BaseException | None) -> None:
        self.identity = ModelIdentity("stub", "demo", "ab" * 32, None)
        self.errors = list(errors)
        self.predicted = 0

    def predict(self, volume: Volume, **_: object) -> Prediction:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.predicted += 1
        lobes = np.zeros(volume.shape, np.uint8)
        lobes[4:16, 12:36, 6:24], lobes[4:16, 12:36, 30:50] = 1, 4
        probability = float(np.clip(1 + volume.array.mean() / 1000, 0, 1))
        return Prediction(volume, lobes, SeverityEstimate(probability, 0.1, (probability,), 0), self.identity, {})
