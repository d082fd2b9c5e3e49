"""Quantifying files: any tool's codes, the scan's own geometry, and the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import typer
from typer.testing import CliRunner

from m2unet.anatomy import CODE_MAPS
from m2unet.cli.quantify import quantify
from m2unet.errors import ConfigError, ScanError
from m2unet.workflows.quantify import opacity_config, quantify_scan, write_quantified

from ..quantify.conftest import Chest, make_chest


@pytest.fixture(scope="module")
def chest() -> Chest:
    """A chest with three lesions."""
    return make_chest(lesions=True)


def save(array: np.ndarray, chest: Chest, path: Path) -> Path:
    """Write with a turned geometry: x and z reversed, so that the way back matters."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array[::-1, :, ::-1]))
    image.SetSpacing(chest.spacing_mm[::-1])
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, -1))
    image.SetOrigin((120.0, -80.0, 30.0))
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture(scope="module")
def files(chest: Chest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The scan, and its lobes in TotalSegmentator's codes."""
    folder = tmp_path_factory.mktemp("chest")
    codes = np.zeros(7, np.uint8)
    for theirs, ours in CODE_MAPS["totalsegmentator-v2"].items():
        codes[ours] = theirs
    return save(chest.array, chest, folder / "ct.nii.gz"), save(codes[chest.lobes], chest, folder / "lobes.nii.gz")


def test_files_are_written_and_agree(chest: Chest, files: tuple[Path, Path], tmp_path: Path) -> None:
    found = quantify_scan(*files, codes="totalsegmentator-v2")
    path = write_quantified(found, tmp_path / "new" / "out")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["schema"] == "m2unet.quantify/1"
    voxel_ml = np.prod(chest.spacing_mm) / 1000
    assert result["lobes"]["RLL"]["volume_ml"] == pytest.approx(np.sum(chest.lobes == 3) * voxel_ml, rel=1e-6)
    inside = chest.lobes > 0
    true_percent = 100 * np.mean(chest.lesions[inside] > 0)
    assert result["lobes"]["lungs"]["opacity"]["opacity_percent"] == pytest.approx(true_percent, abs=1.0)
    with (path.parent / "lobes.csv").open(encoding="utf-8") as text:
        rows = {row["part"]: row for row in csv.DictReader(text)}
    assert float(rows["RLL"]["volume_ml"]) == pytest.approx(result["lobes"]["RLL"]["volume_ml"])
    with (path.parent / "regions.csv").open(encoding="utf-8") as text:
        scores = [int(row["score"]) for row in csv.DictReader(text)]
    assert len(scores) == 20 and sum(scores) == result["scores"][0]["total"]
    assert not [p for p in path.parent.iterdir() if "tmp" in p.name]


def test_the_opacity_mask_lies_on_the_scan(chest: Chest, files: tuple[Path, Path], tmp_path: Path) -> None:
    write_quantified(quantify_scan(*files, codes="totalsegmentator-v2"), tmp_path)
    image, mask = sitk.ReadImage(str(files[0])), sitk.ReadImage(str(tmp_path / "opacity.nii.gz"))
    np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-4)
    array = sitk.GetArrayFromImage(mask)[::-1, :, ::-1]
    truth = chest.lesions > 0
    assert 2 * np.sum((array > 0) & truth) / (np.sum(array > 0) + truth.sum()) > 0.9


def test_wrong_codes_are_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(ScanError, match="no lobe codes"):
        quantify_scan(*files, codes="lungmask")


def test_cuts_can_be_set_and_faults_are_told() -> None:
    assert opacity_config(["least_ml=2", "vote_mm=2.5"]).least_ml == 2
    with pytest.raises(ConfigError, match="equals sign"):
        opacity_config(["least_ml"])
    with pytest.raises(ConfigError, match="vote_mm"):
        opacity_config(["no_such_cut=1"])


def run(*arguments: object) -> str:
    """Run the command alone; its output."""
    app = typer.Typer()
    app.command()(quantify)
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_prints_a_table_and_writes(files: tuple[Path, Path], tmp_path: Path) -> None:
    text = run(files[0], "--lobes", files[1], "--lobe-codes", "totalsegmentator-v2", "--out", tmp_path)
    for wanted in ("RUL", "lungs", "CT severity score:", "lobar CT score:", "Research use only"):
        assert wanted in text
    assert {p.name for p in tmp_path.iterdir()} == {"quantify.json", "lobes.csv", "regions.csv", "opacity.nii.gz"}


def test_it_says_whose_codes_it_recognised(chest: Chest, files: tuple[Path, Path], tmp_path: Path) -> None:
    text = run(files[0], "--lobes", files[1], "--out", tmp_path)
    assert "lobe mask: codes of totalsegmentator-v2, recognised by values and places: 10 = LUL, 11 = LLL" in text
    document = json.loads((tmp_path / "quantify.json").read_text())
    assert document["mask_codes"] == "totalsegmentator-v2"
    assert document["mask"] == {
        "recognised_by": "values and places",
        "labels": {"10": "LUL", "11": "LLL", "12": "RUL", "13": "RML", "14": "RLL"},
    }
    assert document["codes"] == {"RUL": 1, "RML": 2, "RLL": 3, "LUL": 4, "LLL": 5, "airway": 6}
    folder = tmp_path / "totalsegmentator"
    folder.mkdir()
    names = ("", "upper_lobe_right", "middle_lobe_right", "lower_lobe_right", "upper_lobe_left", "lower_lobe_left")
    for code, name in enumerate(names[1:], 1):
        save((chest.lobes == code).astype(np.uint8), chest, folder / f"lung_{name}.nii.gz")
    assert "lobes by the names in the file: lung_upper_lobe_right = RUL" in run(files[0], "--lobes", folder)
    named = json.loads(run(files[0], "--lobes", folder, "--json"))
    assert named["mask_codes"] == "names" and named["lobes"] == document["lobes"]


def test_a_missing_lobe_is_a_warning(chest: Chest, files: tuple[Path, Path], tmp_path: Path) -> None:
    mask = save(np.where(chest.lobes == 2, 0, chest.lobes).astype(np.uint8), chest, tmp_path / "m.nii.gz")
    assert "warning: mask-missing: the lobe mask shows no RML" in run(files[0], "--lobes", mask)
    found = json.loads(run(files[0], "--lobes", mask, "--json"))
    assert "mask-missing" in [finding["code"] for finding in found["findings"]]


def test_the_command_prints_json(files: tuple[Path, Path]) -> None:
    text = run(files[0], "--lobes", files[1], "--json", "--set", "vote_mm=3")
    document = json.loads(text)
    assert document["config"]["vote_mm"] == 3 and document["mask_codes"] == "totalsegmentator-v2"


def test_the_command_refuses_unknown_codes(files: tuple[Path, Path]) -> None:
    app = typer.Typer()
    app.command()(quantify)
    result = CliRunner().invoke(app, [str(files[0]), "--lobes", str(files[1]), "--lobe-codes", "mine"])
    assert result.exit_code == 2 and "not one of auto, m2unet" in result.output
