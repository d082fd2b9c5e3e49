"""Training in processes of its own: killed and resumed, and two processes that make one batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.guard.no_network import with_guard

ROOT = Path(__file__).resolve().parents[2]


def start(folder: Path, *settings: str, processes: int = 1) -> subprocess.Popen[bytes]:
    """Start the worker, under torchrun if more than one process is wanted."""
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", "--max-restarts=3", f"--nproc-per-node={processes}", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": with_guard(str(ROOT), str(ROOT / "src"))}
    return subprocess.Popen([*launcher, "tests.training.worker", str(folder), *settings], cwd=ROOT, env=environment)


def finished(folder: Path, *settings: str, processes: int = 1) -> dict[str, Any]:
    """Run the worker to its end and load what it saved."""
    assert start(folder, *settings, processes=processes).wait(timeout=300) == 0
    saved: dict[str, Any] = torch.load(folder / "final.pt", weights_only=True)
    return saved


def wait_for_epochs(process: subprocess.Popen[bytes], folder: Path, epochs: int) -> None:
    """Wait until so many epochs are done, and fail if the process ends before."""
    metrics = folder / "metrics.csv"
    deadline = time.monotonic() + 200
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > epochs):
        assert process.poll() is None, "the worker ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_and_resumed_gives_the_same_bits(tmp_path: Path) -> None:
    settings = ("train.epochs=20",)
    expected = finished(tmp_path / "a", *settings)
    process = start(tmp_path / "b", *settings)
    wait_for_epochs(process, tmp_path / "b", 4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "b" / "final.pt").exists()
    found = finished(tmp_path / "b", *settings)
    for name, value in expected["model"].items():
        assert torch.equal(value, found["model"][name]), name
    assert len(found["history"]) == 20


def test_two_processes_equal_one_with_the_same_batch(tmp_path: Path) -> None:
    """Batch statistics, losses and gradients are those of the whole batch; unequal masks included."""
    # One large update: rounding differences of a network grow with every further one, whoever computes it.
    settings = ("train.epochs=1", "train.lr=0.05", "train.bags_per_step=10", "train.refresh_statistics=false")
    one = finished(tmp_path / "one", *settings)
    two = finished(tmp_path / "two", *settings, processes=2)
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=0, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    for left, right in zip(one["history"], two["history"], strict=True):
        assert abs(left["loss"] - right["loss"]) < 1e-4 * abs(left["loss"]) + 1e-5


def test_two_processes_agree_on_steps_without_a_label(tmp_path: Path) -> None:
    """Three of ten scans have a mask: in most steps one process or both have none."""
    settings = ("model.name=seg_only", "train.epochs=1", "train.bags_per_step=2", "train.refresh_statistics=false")
    one = finished(tmp_path / "one", *settings)
    two = finished(tmp_path / "two", *settings, processes=2)
    assert two["history"][0]["loss"] == pytest.approx(one["history"][0]["loss"], rel=1e-3)


@pytest.mark.slow  # gloo's rendezvous after a restart can take minutes, or fail, on a busy machine
def test_one_of_two_processes_is_killed_and_all_are_restarted(tmp_path: Path) -> None:
    settings = ("train.epochs=12", "train.bags_per_step=10")
    expected = finished(tmp_path / "a", *settings, processes=2)
    launcher = start(tmp_path / "b", *settings, processes=2)
    wait_for_epochs(launcher, tmp_path / "b", 2)
    first, second = psutil.Process(launcher.pid).children()
    second.kill()
    assert launcher.wait(timeout=300) == 0
    assert not first.is_running()
    found = torch.load(tmp_path / "b" / "final.pt", weights_only=True)
    for name, value in expected["model"].items():
        assert torch.equal(value, found["model"][name]), name
    assert len(found["history"]) == 12
