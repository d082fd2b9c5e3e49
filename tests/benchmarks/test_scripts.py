"""The benchmark scripts run, at a tiny size; the GPU's on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
    assert rows["streamed", False]["cpu_seconds"] < rows["plain", False]["cpu_seconds"]
    assert len(rows) == 8


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
