"""The model that ships with the package: small, safe, right about phantoms, and it refuses what is no chest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from m2unet.anatomy import LEFT_CODES, RIGHT_CODES
from m2unet.cli.main import app
from m2unet.ct.findings import QualityError
from m2unet.ct.volume import Volume, from_source
from m2unet.ct.write import write_volume
from m2unet.inference.predictor import Predictor, packaged_model
from m2unet.phantom.anatomy import Anatomy, Grid, draw_anatomy


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load()


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return Anatomy(draw_anatomy(np.random.default_rng(77)))


def scan(anatomy: Anatomy, low: float, high: float) -> tuple[Volume, np.ndarray]:
    """A noisy phantom between two heights (mm above the lungs' base), and its lobes."""
    (_, *near), (_, *far) = anatomy.body_extent_mm
    grid = Grid.around((low, near[0], near[1]), (high, far[0], far[1]), (5.0, 2.5, 2.5))
    tissues = anatomy.render(grid)
    noise = np.random.default_rng(0).normal(0, 20, grid.shape)
    return from_source(np.rint(tissues.hu + noise).astype(np.int16), grid.spacing_mm), tissues.lobes


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def test_it_is_small_and_says_what_it_is() -> None:
    folder = packaged_model()
    assert (folder / "weights.safetensors").stat().st_size <= 20e6
    card = json.loads((folder / "model.json").read_text("utf-8"))
    assert card["trained_on"] == "invented chest images alone; no patient's data"
    assert card["training"]["steps"] > 0 and len(card["initial_weights_sha256"]) == 64
    text = (folder / "MODEL_CARD.md").read_text("utf-8")
    for words in ("Training data", "Intended use", "Measured", "Limits"):
        assert words in text


def test_lobes_of_a_phantom_it_never_saw(predictor: Predictor, anatomy: Anatomy) -> None:
    volume, truth = scan(anatomy, -40, 330)
    found = predictor.predict(volume)
    assert found.severity is None and found.lobes is not None
    lungs, true_lungs = (found.lobes > 0) & (found.lobes < 6), (truth > 0) & (truth < 6)
    assert dice(lungs, true_lungs) > 0.93
    assert dice(np.isin(found.lobes, RIGHT_CODES), np.isin(truth, RIGHT_CODES)) > 0.9
    assert dice(np.isin(found.lobes, LEFT_CODES), np.isin(truth, LEFT_CODES)) > 0.9


def test_abdomen_and_head_and_air_are_refused(predictor: Predictor, anatomy: Anatomy) -> None:
    abdomen, _ = scan(anatomy, -235, -40)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (50, 80, 70)), indexing="ij")
    radius = np.sqrt(z**2 + y**2 + x**2)
    head = np.where(radius < 0.8, 35, -1000) + 900 * ((radius > 0.8) & (radius < 0.86))
    air = np.full((40, 64, 64), -1000)
    for other in (
        abdomen,
        from_source(head.astype(np.int16), (4.0, 2.6, 2.6)),
        from_source(air.astype(np.int16), (4.0, 5.0, 5.0)),
    ):
        with pytest.raises(QualityError, match="lungs-absent"):
            predictor.predict(other)


def test_predict_without_a_model(anatomy: Anatomy, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    volume, _ = scan(anatomy, -30, 320)
    write_volume(volume, tmp_path / "one.nii.gz")
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "one.nii.gz"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    (document,) = (tmp_path / "out").glob("one-*/result.json")
    said = json.loads(document.read_text("utf-8"))
    assert said["severity"]["probability"] is None and "trained on patients" in said["severity"]["reason"]
    assert said["model"]["preset"] == "synthetic" and "invented" in said["warnings"][0]
    assert {q["region"] for q in said["lobes"]["volumes"]} >= {"RUL", "RML", "RLL", "LUL", "LLL"}
    assert all(score["total"] is not None for score in said["lobes"]["scores"])
    assert "trained on patients" in (tmp_path / "out" / document.parent.name / "report.html").read_text("utf-8")
