"""Whole-volume lobes and severity of one scan, full-size M²UNet, against lungmask's lobe network.

    python benchmarks/inference.py --scan DIR [--model RUN] [--engine NAME] [--bags 5] [--json FILE]

Both run in this process on two threads, in turns (a few of our slices, some of theirs, and so on), so that other work
on the machine hits both alike. Ours is everything between a volume in memory and its lobe mask and severity:
preparation, lobes, seeded bags of 200 patches. Theirs is the forward pass of its U-Net (PyPI ``lungmask``, the
architecture of its lobe model) over every slice at its own 256 x 256, twenty at a time as it does; its resizing and
tidying are not counted. Weights are random in both; ours lean to background: lobes at the edge of a region would
have it computed again, and random lobes are everywhere. ``--every 4`` takes every fourth slice, for both.

Agreement with float32 is measured on a *trained* model, ``--model`` or the demo's; without one those figures are
null. It is taken on the same regions, which tells what the engine does, and against whole planes, which tells what the
regions do.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Threads that wait by spinning would be charged for other programs' work. The command line sets the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray

from m2unet.config import Config, load_config
from m2unet.ct.prepare import prepare_volume
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume, from_source
from m2unet.inference.engine import accelerate
from m2unet.inference.lobes import segment_steps
from m2unet.inference.predictor import Predictor
from m2unet.inference.severity import estimate_severity
from m2unet.workflows.train import seeded_model

THREADS = 2
DEMO = Path(__file__).resolve().parents[1] / "runs" / "demo"
PEER_BATCH = 20
CPU = torch.device("cpu")


@dataclass
class Clock:
    """Wall and processor seconds by stage."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    def run(self, stage: str, work: Callable[[], Any]) -> Any:
        """Do some work and charge it to a stage."""
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        self.wall[stage] = self.wall.get(stage, 0.0) + time.perf_counter() - wall
        self.cpu[stage] = self.cpu.get(stage, 0.0) + time.process_time() - cpu
        return found


def peer_network() -> torch.nn.Module:
    """lungmask's lobe network with random weights; only its architecture's file is imported."""
    spec = importlib.util.find_spec("lungmask")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("lungmask is not installed: pip install --no-deps lungmask")
    path = Path(spec.submodule_search_locations[0]) / "resunet.py"
    loaded = importlib.util.spec_from_file_location("lungmask_resunet", path)
    assert loaded is not None and loaded.loader is not None
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    network: torch.nn.Module = module.UNet(
        n_classes=6, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False
    )
    return network.eval()


def peer_steps(clock: Clock, slices: int) -> Iterator[None]:
    """Their network over all slices, a batch a step."""
    network = peer_network()
    for start in range(0, slices, PEER_BATCH):
        images = torch.rand(min(PEER_BATCH, slices - start), 1, 256, 256)
        with torch.inference_mode():
            clock.run("lungmask", lambda images=images: network(images))
        yield


def our_steps(clock: Clock, volume: Volume, config: Config, engine: str, bags: int) -> Iterator[str]:
    """Ours, a slab or a bag a step; yields what computes it."""
    random = seeded_model(config)
    with torch.no_grad():
        random.get_parameter("decoder.head.bias")[0] = 100.0
    model, name = accelerate(random, engine, CPU)
    warm = torch.zeros(1, model.in_channels, 64, 64)
    with torch.inference_mode():
        model.segment(warm), model.embed(warm)
    scan = clock.run("prepare", lambda: prepare_volume(volume, config.prepare))
    steps = segment_steps(model, scan, config, device=CPU)
    while clock.run("lobes", lambda: next(steps, None)) is not None:
        yield name
    for bag in range(bags):
        clock.run("severity", lambda bag=bag: estimate_severity(model, scan, config, seed=bag, device=CPU, bags=1))
        yield name


def race(volume: Volume, config: Config, engine: str, bags: int) -> dict[str, Any]:
    """Both in turns."""
    clock = Clock()
    ours = our_steps(clock, volume, config, engine, bags)
    theirs = peer_steps(clock, volume.shape[0])
    name = ""
    running = True
    while running:
        running = False
        for _ in range(2):
            step = next(ours, None)
            if step is not None:
                name, running = step, True
        if next(theirs, "done") is None:
            running = True
    stages = ("prepare", "lobes", "severity")
    own, own_cpu = sum(clock.wall[s] for s in stages), sum(clock.cpu[s] for s in stages)
    return {
        "engine": name,
        "bags": bags,
        "speedup_vs_lungmask": round(clock.wall["lungmask"] / own, 2),
        "speedup_vs_lungmask_cpu_time": round(clock.cpu["lungmask"] / own_cpu, 2),
        "seconds_ours": round(own, 1),
        "seconds_lungmask": round(clock.wall["lungmask"], 1),
        "wall_seconds": {k: round(v, 2) for k, v in clock.wall.items()},
        "cpu_seconds": {k: round(v, 2) for k, v in clock.cpu.items()},
    }


def agreement(volume: Volume, run: Path, engine: str) -> dict[str, Any]:
    """A trained model: this engine against float32 on the same regions, and on every slice and the whole plane."""
    from m2unet.inference.lobes import segment_lobes

    fast = Predictor.load(run, engine=engine).predict(volume)
    plain = Predictor.load(run, engine="reference")
    scan = prepare_volume(volume, plain.config.prepare)
    whole = type(scan)(**{**vars(scan), "lung_boxes": None})
    assert fast.lobes is not None and fast.severity is not None
    severity = estimate_severity(plain.network, scan, plain.config, seed=0, device=CPU)
    same, planes = (
        _overlap(segment_lobes(plain.network, each, plain.config, device=CPU), fast.lobes) for each in (scan, whole)
    )
    return {
        "trained_model": run.name,
        "dice_vs_float32": same,
        "dice_vs_float32_whole_planes": planes,
        "severity_difference": round(abs(severity.probability - fast.severity.probability), 4),
    }


def _overlap(expected: NDArray[np.uint8], found: NDArray[np.uint8]) -> float | None:
    """Dice over all lobes together: a voxel counts where both name the same lobe."""
    held = int((expected > 0).sum() + (found > 0).sum())
    same = int(((expected == found) & (expected > 0)).sum())
    return round(2 * same / held, 4) if held else None


def peak_mib(scan: Path, engine: str) -> float:
    """Most memory a process of its own holds that reads the scan and predicts it with a full-size model."""
    done = subprocess.run(
        [sys.executable, __file__, "--scan", str(scan), "--engine", engine, "--memory-only"],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mib"])


def memory_only(scan: Path, engine: str) -> None:
    """The body of :func:`peak_mib`'s process."""
    config = load_config("paper")
    volume = read_scan(scan)
    for _ in our_steps(Clock(), volume, config, engine, 1):
        pass
    print(json.dumps({"peak_mib": held_at_most()}))


def held_at_most() -> float:
    """Most memory this process held, MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would begin with what the parent held when it started this process
        return int(next(x for x in status.read_text("ascii").splitlines() if x.startswith("VmHWM")).split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def thinned(volume: Volume, every: int) -> Volume:
    """Every n-th slice."""
    if every == 1:
        return volume
    z, y, x = volume.spacing_mm
    return from_source(np.ascontiguousarray(volume.array[::every]), (z * every, y, x))


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="run of a trained model, for the agreement [default: runs/demo]")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--bags", type=int, default=1, help="bags of 200 patches")
    parser.add_argument("--every", type=int, default=1, help="take every n-th slice only")
    parser.add_argument("--no-memory", action="store_true", help="leave out the process that measures memory")
    parser.add_argument("--set", action="append", default=[], help="override a setting of the paper's preset")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    if options.memory_only:
        memory_only(options.scan, options.engine)
        return
    volume = thinned(read_scan(options.scan), options.every)
    found = race(volume, load_config("paper", options.set), options.engine, options.bags)
    found |= {"dice_vs_float32": None, "dice_vs_float32_whole_planes": None, "peak_mib": None}
    if not options.no_memory:
        found["peak_mib"] = round(peak_mib(options.scan, options.engine))
    model = options.model or (DEMO if (DEMO / "model").is_dir() else None)
    if model is not None:
        found |= agreement(volume, model, options.engine)
    else:
        found["dice_vs_float32_reason"] = "no trained model: give --model, or run `make demo` first"
    found |= {
        "shape": volume.shape,
        "threads": THREADS,
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
