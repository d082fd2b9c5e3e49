"""Prediction asks for no network and leaves nothing in the user's home, by any engine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import m2unet
from m2unet.cohort.manifest import Manifest
from m2unet.workflows.run_folder import RunFolder
from tests.guard import no_network
from tests.report.pages import read_page

CI = ("CI", "TF_BUILD", "JENKINS_URL")
"""Where one of these is set OpenVINO reports nothing of its own accord, and a test would prove nothing."""


def python(home: Path, log: Path, *arguments: str) -> str:
    """What a guarded Python writes that runs in a home of its own; every attempt is in the log."""
    environment = {name: value for name, value in os.environ.items() if name not in CI}
    for name in [name for name in environment if name.startswith("XDG_") or name == "MPLCONFIGDIR"]:
        del environment[name]
    environment |= {"HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home), no_network.LOG: str(log)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def files_in(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("engine", ["openvino", "auto", "torch"])
def test_predict_asks_for_no_network(engine: str, run: RunFolder, cohort: Manifest, home: Path, tmp_path: Path) -> None:
    images, log = [str(row.image) for row in cohort.rows[:2]], tmp_path / "attempts.log"
    options = ["--model", str(run.path), "--out", str(tmp_path / "out"), "--engine", engine]
    python(home, log, "-m", "m2unet", "predict", *images, *options)
    computed = "torch" if engine == "torch" else "openvino"  # auto takes OpenVINO where it is installed
    for result in (tmp_path / "out").glob("*/result.json"):
        assert f'"{computed}-' in result.read_text(encoding="utf-8")
    assert len(list((tmp_path / "out").glob("*/result.json"))) == 2
    assert no_network.attempts(log) == []
    assert files_in(home) == []
    pages = list((tmp_path / "out").rglob("*.html"))
    assert {page.name for page in pages} == {"report.html", "viewer.html", "cohort.html"}
    for page in pages:
        references = read_page(page.read_text(encoding="utf-8")).references
        assert references and not any(re.match(r"(?!data:)[a-z]+:|//", reference) for reference in references)


def test_the_shipped_model_asks_for_no_network(cohort: Manifest, home: Path, tmp_path: Path) -> None:
    log = tmp_path / "attempts.log"
    python(home, log, "-m", "m2unet", "predict", str(cohort.rows[0].image), "--out", str(tmp_path / "out"))
    assert no_network.attempts(log) == []
    assert files_in(home) == []


COMPILE = """
import torch
from m2unet.config import load_config
from m2unet.inference.engine import accelerate
from m2unet.models.registry import build_model

def work():
    model = build_model(load_config("demo", ["model.width=4", "model.deep_width=8"]).model)
    network, name = accelerate(model, "openvino", torch.device("cpu"))
    with torch.inference_mode():
        network.segment(torch.rand(1, model.in_channels, 32, 32))
    assert name.startswith("openvino")
"""
WORKERS = """
if __name__ == "__main__":
    import multiprocessing
    child = multiprocessing.get_context("{start}").Process(target=work)
    child.start()
    child.join()
    raise SystemExit(child.exitcode)
"""
IMPORTED_BEFORE = """
import os, sys
os.environ["CI"] = "true"  # keeps the import itself, which is not ours, from being reported
import openvino
assert "openvino_telemetry" in sys.modules
del os.environ["CI"]
"""
USED_AFTER = """
work()
import openvino
openvino.convert_model(torch.nn.Linear(2, 2), example_input=torch.zeros(1, 2))
"""


@pytest.mark.parametrize(
    ("code", "consent"),
    [
        pytest.param(COMPILE + WORKERS.format(start="spawn"), "", id="spawned worker"),
        pytest.param(COMPILE + WORKERS.format(start="fork"), "1", id="forked worker, opted in"),
        pytest.param(IMPORTED_BEFORE + COMPILE + "work()", "", id="OpenVINO imported before"),
        pytest.param(COMPILE + USED_AFTER, "1", id="OpenVINO used afterwards, opted in"),
    ],
)
def test_openvino_reports_nothing(code: str, consent: str, home: Path, tmp_path: Path) -> None:
    log, script = tmp_path / "attempts.log", tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    if consent:
        (home / "intel").mkdir()
        (home / "intel" / "openvino_telemetry").write_text(consent, encoding="utf-8")
    before = files_in(home)
    python(home, log, str(script))
    assert no_network.attempts(log) == []
    assert files_in(home) == before


def test_openvino_left_alone_would_be_caught(home: Path, tmp_path: Path) -> None:
    """What the tests above rest on: OpenVINO reports its import, and the guard sees it."""
    pytest.importorskip("openvino_telemetry")
    log = tmp_path / "attempts.log"
    python(home, log, "-c", "import openvino")
    assert any("google-analytics" in line for line in no_network.attempts(log))
    assert "intel" in files_in(home)


def test_the_tests_of_openvino_and_dask_are_not_skipped_by_default() -> None:
    """``make test`` and CI install the extra ``dev``, so it brings both."""
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert "m2unet[dicom,openvino,cluster]" in project["project"]["optional-dependencies"]["dev"]


def test_openvino_is_imported_in_one_place_only() -> None:
    found = set()
    for path in Path(m2unet.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "openvino" for name in names):
                found.add(path.name)
    assert found == {"openvino_engine.py"}
