"""One predicted case, made by hand from a small chest, and everything written for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from m2unet.ct.findings import Finding
from m2unet.ct.volume import Volume, from_source
from m2unet.inference.predictor import ModelIdentity, Prediction
from m2unet.inference.severity import SeverityEstimate
from m2unet.report.result import ResultDocument
from m2unet.workflows.case import CaseOptions, write_case

from ..quantify.conftest import make_chest

FINDING = Finding("thick-slices", "warning", "slices of <6> mm & more", "reconstruct thinner slices")


@dataclass(frozen=True)
class WrittenCase:
    """A case on disk.

    Attributes:
        folder: of the case.
        document: what ``result.json`` holds.
        prediction: what it was made from.
    """

    folder: Path
    document: ResultDocument
    prediction: Prediction


def make_prediction(*, trained_on: str | None = "digital phantoms only; not for patients") -> Prediction:
    """A sick chest with five lobes and a severity of 0.8."""
    chest = make_chest(lesions=True)
    base = from_source(chest.array, chest.spacing_mm)
    volume = Volume(base.array, base.spacing_mm, base.origin_mm, base.direction, base.source, (FINDING,))
    return Prediction(
        volume,
        chest.lobes.copy(),
        SeverityEstimate(0.8, 0.05, (0.75, 0.85), 3),
        ModelIdentity("m2unet", "demo", "ab" * 32, trained_on),
        {"read": 1.0},
    )


@pytest.fixture(scope="session")
def prediction() -> Prediction:
    return make_prediction()


@pytest.fixture(scope="session")
def written(prediction: Prediction, tmp_path_factory: pytest.TempPathFactory) -> WrittenCase:
    """The case in a folder of its own, with a stray island to tidy."""
    lobes = prediction.lobes
    assert lobes is not None
    lobes[0, 0, :3] = 2
    folder = tmp_path_factory.mktemp("out") / "case <1>"
    document = write_case(prediction, "case <1>", folder, CaseOptions(seed=3), fingerprint="cd" * 32)
    return WrittenCase(folder, document, prediction)
