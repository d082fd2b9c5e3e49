"""The command line: help without heavy imports, errors without tracebacks, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from m2unet import __version__
from m2unet.cli import main as main_module
from m2unet.cli.main import app
from m2unet.cli.predict import _cases
from m2unet.cohort.manifest import Manifest
from m2unet.config import preset_names
from tests.small_cohort import TINY


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["m2unet", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main_module.run()
    return int(stop.value.code or 0)


def small(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, m2unet.cli.main; print([m for m in ('torch', 'monai', 'SimpleITK', 'pandas') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_command_has_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = [command.name for command in app.registered_commands]
    assert {"demo", "predict", "check", "phantom", "prepare", "train", "crossval", "evaluate", "info"} <= set(names)
    for name in names:
        assert call(monkeypatch, str(name), "--help") == 0
        assert "Usage" in capsys.readouterr().out


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "scan.nii.gz", "--model", "nowhere", "--out", "out"), "no trained model here"),
        (("train", "nothing.csv", "--out", "out"), "nothing.csv"),
        (("train", "nothing.csv", "--out", "out", "--preset", "unknown"), "no such preset"),
        (("train", "nothing.csv", "--out", "out", "--set", "train.speed=1"), "train.speed"),
        (("crossval", "nothing.csv", "--out", "out", "--by", "hospital"), "patient or scan"),
        (("predict", "scan.nii.gz", "--model", "x", "--out", "out", "--mask-format", ".png"), ".nrrd"),
        (("predict", "scan.nii.gz", "--model", "x", "--out", "out", "--device", "tpu:x"), "device"),
    ],
)
def test_bad_use_is_one_message_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *arguments) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def test_train_evaluate_predict_as_a_user(
    cohort: Manifest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_folder = tmp_path / "run"
    arguments = ["train", cohort.path, "--out", run_folder, "--preset", "demo", "--epochs", "1", "--device", "cpu"]
    assert call(monkeypatch, *arguments, *small(TINY[:-2]), "--validation", "0.25") == 0
    assert (run_folder / "model" / "weights.safetensors").is_file()
    assert call(monkeypatch, *arguments) == 2  # the folder already holds a run
    assert call(monkeypatch, "evaluate", run_folder, cohort.path, "--out", tmp_path / "ev", "--device", "cpu") == 0
    assert json.loads((tmp_path / "ev" / "summary.json").read_text())["figures"]["scans"] == len(cohort)
    bad = tmp_path / "bad.mha"
    bad.write_bytes(b"?")
    scan = cohort.rows[0].image
    out = tmp_path / "out"
    assert call(monkeypatch, "predict", scan, bad, "--model", run_folder, "--out", out, "--device", "cpu") == 1
    assert call(monkeypatch, "predict", bad, "--model", run_folder, "--out", out, "--device", "cpu") == 2
    capsys.readouterr()
    assert call(monkeypatch, "predict", scan, "--model", run_folder, "--out", out, "--device", "cpu") == 0
    assert "skipped" in capsys.readouterr().out


def test_cross_validation_of_one_fold(
    cohort: Manifest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["crossval", cohort.path, "--out", tmp_path / "cv", "--preset", "demo", "--folds", "3", "--fold", "1"]
    assert call(monkeypatch, *arguments, "--epochs", "1", "--device", "cpu", *small(TINY[:-2])) == 0
    assert "dsc" in capsys.readouterr().out
    assert (tmp_path / "cv" / "fold1" / "summary.json").is_file()


def test_presets_are_listed() -> None:
    assert preset_names() == ["demo", "paper", "synthetic"]


def test_whose_codes_a_mask_uses_is_recognised_unless_told(tmp_path: Path) -> None:
    (tmp_path / "ct.nii.gz").touch()
    for told, used in ((None, "auto"), ("lungmask", "lungmask")):
        (case,) = _cases([tmp_path / "ct.nii.gz"], tmp_path / "lobes.nii.gz", told)
        assert case.codes == used
