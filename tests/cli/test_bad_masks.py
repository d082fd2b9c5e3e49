"""Every command that reads lobe masks refuses one that is none, lists all bad rows, and loses nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import Result
from typer.testing import CliRunner

from m2unet.cli.main import app
from m2unet.cohort.manifest import Manifest, ManifestRow, write_manifest
from m2unet.workflows.annotation import AnnotationFolder, propose_masks
from m2unet.workflows.run_folder import RunFolder
from tests.cohort.conftest import chest
from tests.cohort.importers import trees
from tests.cohort.mask_files.samples import lungs

ORDER = {1: 5, 2: 4, 3: 3, 4: 1, 5: 2}
HANDCRAFTED = ["--set", "handcrafted.trees=5", "--set", "confidence.reference_scans=0"]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def said(result: Result) -> str:
    """All that a user is told; errors of the package are printed by the program's entry point."""
    return f"{result.output} {result.exception or ''}"


def exit_code(result: Result) -> int:
    code = getattr(result.exception, "exit_code", None)
    return result.exit_code if code is None else int(code)


def spoiled(row: ManifestRow, path: Path, kind: str) -> ManifestRow:
    """The row with lungs, or lobes in an order of nobody's, in place of its mask."""
    image = sitk.ReadImage(str(row.lobes))
    mask = sitk.GetArrayFromImage(image)
    table = np.zeros(256, np.uint8)
    for code, value in ORDER.items():
        table[code] = value
    bad = sitk.GetImageFromArray(lungs(mask) if kind == "lungs" else table[mask])
    bad.CopyInformation(image)
    sitk.WriteImage(bad, str(path))
    return replace(row, lobes=path)


@pytest.fixture(scope="module")
def rows(cohort: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ManifestRow, ...]:
    """Six phantoms; the masks of the first two are none."""
    folder = tmp_path_factory.mktemp("bad")
    kinds = ("lungs", "order")
    bad = [spoiled(row, folder / f"{row.scan_id}.nii.gz", kind) for row, kind in zip(cohort.rows, kinds, strict=False)]
    return (*bad, *cohort.rows[2:6])


@pytest.fixture
def manifest(rows: tuple[ManifestRow, ...], tmp_path: Path) -> Path:
    write_manifest(rows, tmp_path / "cohort.csv")
    return tmp_path / "cohort.csv"


def both_are_named(rows: tuple[ManifestRow, ...], text: str) -> bool:
    flat = " ".join(text.split())
    named = all(row.scan_id in flat for row in rows[:2])
    return named and "R231" in flat and "no known tool" in flat


def test_quantify(rows: tuple[ManifestRow, ...], tmp_path: Path) -> None:
    for row in rows[:2]:
        for codes in ("auto", "m2unet"):
            result = call("quantify", row.image, "--lobes", row.lobes, "--lobe-codes", codes, "--out", tmp_path / "out")
            assert exit_code(result) == 2 and " ml, right" in said(result)
    assert not (tmp_path / "out").exists()


def test_prepare_keeps_the_good_rows(rows: tuple[ManifestRow, ...], manifest: Path, tmp_path: Path) -> None:
    result = call("prepare", manifest, "--out", tmp_path / "store", "--preset", "demo", "--set", "prepare.inplane_mm=5")
    assert exit_code(result) == 1 and both_are_named(rows, said(result))
    assert "4 prepared" in result.output
    write_manifest(rows[:2], tmp_path / "bad.csv")
    assert exit_code(call("prepare", tmp_path / "bad.csv", "--out", tmp_path / "b", "--preset", "demo")) == 2


@pytest.mark.parametrize("command", ["train", "crossval"])
def test_train_and_crossval(command: str, rows: tuple[ManifestRow, ...], manifest: Path, tmp_path: Path) -> None:
    result = call(command, manifest, "--out", tmp_path / "run", "--preset", "demo", "--set", "prepare.inplane_mm=5")
    assert exit_code(result) == 2 and both_are_named(rows, said(result))


def test_train_of_a_handcrafted_method(rows: tuple[ManifestRow, ...], manifest: Path, tmp_path: Path) -> None:
    result = call("train", manifest, "--out", tmp_path / "run", "--preset", "demo", "--model", "tang", *HANDCRAFTED,
                  "--validation", "0")  # fmt: skip
    assert exit_code(result) == 2 and both_are_named(rows, said(result))
    assert len(list((tmp_path / "run" / "store-measurements").glob("*.json"))) == 4, "the others are measured"


def test_reproduce(rows: tuple[ManifestRow, ...], manifest: Path, tmp_path: Path) -> None:
    result = call("reproduce", "--cohort", manifest, "--out", tmp_path / "out", "--preset", "demo", "--only", "table3",
                  "--folds", "3")  # fmt: skip
    assert exit_code(result) == 2 and both_are_named(rows, said(result))


def test_evaluate_keeps_the_severity(
    rows: tuple[ManifestRow, ...], run: RunFolder, manifest: Path, tmp_path: Path
) -> None:
    result = call("evaluate", run.path, manifest, "--out", tmp_path / "out", "--device", "cpu")
    assert exit_code(result) == 1 and both_are_named(rows, said(result))
    kept = json.loads((tmp_path / "out" / "scores" / f"{rows[0].scan_id}.json").read_text())["score"]
    assert "R231" in kept["error"] and kept["probability"] is not None and kept["overlap"] == {}
    write_manifest(rows[:2], tmp_path / "bad.csv")
    assert exit_code(call("evaluate", run.path, tmp_path / "bad.csv", "--out", tmp_path / "b", "--device", "cpu")) == 2


def test_followup(rows: tuple[ManifestRow, ...], tmp_path: Path) -> None:
    bad, good = rows[0], rows[2:4]
    scans = [bad.image, *(row.image for row in good)]
    masks = [bad.lobes, *(row.lobes for row in good)]
    dates = [part for day in ("01", "05", "09") for part in ("--date", f"2020-03-{day}")]
    lobes = [part for mask in masks for part in ("--lobes", mask)]
    result = call("followup", *scans, *dates, *lobes, "--out", tmp_path / "out")
    assert exit_code(result) == 1 and "R231" in said(result), "two scans are compared, the third is told"
    result = call("followup", *scans[:2], *dates[:4], *lobes[:4], "--out", tmp_path / "two")
    assert exit_code(result) == 2


def test_predict_with_a_handcrafted_method(rows: tuple[ManifestRow, ...], cohort: Manifest, tmp_path: Path) -> None:
    write_manifest(cohort.rows, tmp_path / "good.csv")
    trained = call("train", tmp_path / "good.csv", "--out", tmp_path / "run", "--preset", "demo", "--model", "yang",
                   *HANDCRAFTED, "--validation", "0.25")  # fmt: skip
    assert trained.exit_code == 0, said(trained)
    result = call("predict", rows[0].image, "--lobes", rows[0].lobes, "--model", tmp_path / "run", "--out",
                  tmp_path / "out", "--no-report")  # fmt: skip
    assert exit_code(result) == 2 and "R231" in said(result)


def test_annotate_take(rows: tuple[ManifestRow, ...], run: RunFolder, tmp_path: Path) -> None:
    bare = tuple(replace(row, lobes=None) for row in rows)
    write_manifest(bare, tmp_path / "bare.csv")
    propose_masks(Manifest(tmp_path / "bare.csv", bare[:2]), run.path, tmp_path / "proposals")
    folder = AnnotationFolder(tmp_path / "proposals")
    for row in rows[:2]:
        (folder.corrected / f"{row.scan_id}.nii.gz").write_bytes(row.lobes.read_bytes())  # type: ignore[union-attr]
    result = call("annotate", "take", folder.path)
    assert exit_code(result) == 2
    assert "LUL is not there" in said(result) and "sides:" in said(result)
    assert not folder.taken(rows[0].scan_id).exists()


def test_import_lists_bad_masks(tmp_path: Path) -> None:
    for name, mask in {
        "a": chest(1)[1],
        "b": lungs(chest(2)[1]),
        "c": np.take([0, *ORDER.values()], chest(3)[1]),
    }.items():
        trees.save_in(chest(ord(name))[0], tmp_path / f"lm/images/{name}.nii.gz")
        trees.save_in(mask.astype(np.uint8), tmp_path / f"lm/masks/{name}.nii.gz")
    result = call("import", "lungmask-masks", tmp_path / "lm", "--out", tmp_path / "c.csv", "--lobe-codes", "auto")
    assert exit_code(result) == 1 and "R231" in said(result) and "no known tool" in said(result)
    assert "1 scans, 1 with lobes" in result.output


def test_fine_tuning_leaves_bad_masks_out_and_says_so(rows: tuple[ManifestRow, ...], tmp_path: Path) -> None:
    write_manifest(rows[:3], tmp_path / "three.csv")
    result = call("train", tmp_path / "three.csv", "--out", tmp_path / "run", "--init", "none", "--steps", "1")
    assert exit_code(result) == 1 and "R231" in said(result) and "no known tool" in said(result)
    write_manifest(rows[:2], tmp_path / "bad.csv")
    assert (
        exit_code(call("train", tmp_path / "bad.csv", "--out", tmp_path / "b", "--init", "none", "--steps", "1")) == 2
    )
