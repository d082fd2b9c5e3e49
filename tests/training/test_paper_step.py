"""One optimiser step of the ``paper`` preset: at full size (slow), and small so that the script itself is tried."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "paper_step.py"


def step(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_a_step_with_few_patches_runs() -> None:
    found = step("--patches", "1", "--bags", "2")
    assert 0 < found["loss"] < 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_full_size_step_runs() -> None:
    found = step()
    assert 0 < found["loss"] < 10
    assert found["bags"] == 4 and found["patches"] == 200
