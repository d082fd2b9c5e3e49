"""The benchmark scripts run, at a tiny size; the GPU's on the CPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from m2unet.config import load_config
from m2unet.phantom.randomised.pool import build_pool
from m2unet.workflows.train import seeded_model

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments], check=True, capture_output=True, text=True, timeout=500
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_gpu(tmp_path: Path) -> None:
    found = run("gpu.py", "--device", "cpu", "--tiny", "--json", str(tmp_path / "gpu.json"))
    assert found["tiny"] and found["device"] == "cpu"
    assert found["training"]["masked"]["ms"] > 0 and found["seconds_a_scan"] > 0
    assert json.loads((tmp_path / "gpu.json").read_text()) == found


@pytest.mark.slow
def test_training() -> None:
    found = run("training.py", "--patches", "1")
    rows = {(row["case"], row["masked"]): row for row in found["rows"]}
    assert rows["recompute", False]["cpu_seconds"] < rows["plain", False]["cpu_seconds"]
    assert len(rows) == 6


@pytest.mark.slow
def test_parts(real_data: Path) -> None:
    small = [part for change in ("model.width=4", "bag.size=3") for part in ("--set", change)]
    found = run("parts.py", "--scan", str(real_data / "cip" / "ct-64.nrrd"), "--slices", "2", "--repeats", "1", *small)
    assert found["patches_a_second"] == pytest.approx(3 / found["seconds_severity_one_bag"], rel=0.6)
    rate = found["gflops_a_second"]
    best = max(rate["convolution of patches, bf16"], rate["convolution of patches, float32"])
    assert found["share_of_plain_convolution"]["severity"] == pytest.approx(rate["severity"] / best, rel=0.2, abs=0.02)


def test_operations_by_hand() -> None:
    spec = importlib.util.spec_from_file_location("parts", FOLDER / "parts.py")
    assert spec is not None and spec.loader is not None
    parts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(parts)
    layer = torch.nn.Conv2d(3, 5, 3, padding=1)
    # 2 images of 4 x 6 pixels, 5 channels out of 3 in, 9 taps, a multiplication and an addition each
    assert parts.operations(lambda: layer(torch.zeros(2, 3, 4, 6))) == 2 * 4 * 6 * 5 * 3 * 9 * 2
    model = seeded_model(load_config("paper", ["model.width=4", "model.deep_width=8"]))
    full, half, quarter, eighth, deep = 64 * 64, 32 * 32, 16 * 16, 8 * 8, 4 * 4
    encoder = full * (1 + 4) * 4 + (half + quarter + eighth) * (4 + 4) * 4 + deep * (4 + 8) * 8
    rises = eighth * 8 * 4 + (quarter + half + full) * 4 * 4
    joins = (eighth + quarter + half + full) * (8 + 4) * 4  # two maps in, then one
    head = full * 4 * model.config.classes
    expected = 2 * (9 * (encoder + rises + joins) + head)
    assert parts.operations(lambda: model.eval().segment(torch.zeros(1, 1, 64, 64))) == expected


@pytest.mark.slow
def test_architectures(tmp_path: Path) -> None:
    build_pool(tmp_path / "pool", 2, 1)
    sizes = ["--chests", "1", "--held-out", "1", "--steps", "2", "--slabs", "1", "--validation", "2", "--tiny", "4"]
    arguments = ["--pool", str(tmp_path / "pool"), "--device", "cpu", "--json", str(tmp_path / "found.json"), *sizes]
    subprocess.run([sys.executable, str(FOLDER / "architectures.py"), *arguments], check=True, timeout=500)
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert len(rows) == 4 and all(0 <= row["val_lobe_dice"] <= 1 for row in rows.values())
    assert rows["M²UNet, position-aware"]["val_fissure_auc"] is None
    assert rows["M²UNet, position-aware"]["parameters"] - rows["M²UNet, no position"]["parameters"] == 3 * 9 * 64


@pytest.mark.slow
def test_fissures() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "fissures.py"), "--chests", "2"], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    for look in ("everyday", "any"):
        assert found[look]["lobe_dice_walked"] > 0.7 and found[look]["fissure_auc"] > 0.7


@pytest.mark.slow
def test_data_path() -> None:
    found = run("data_path.py", "--scans", "1", "--bags", "3")
    assert all(row["bags_per_second"] > 0 for row in found["rows"])


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_fifty_times_and_nothing_differs() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "kill.py"), "--kills", "50"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["kills"].values()) > 10 and found["files"] > 20 and not found["differing"]
