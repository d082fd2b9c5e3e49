"""How inference grows with slices, patches and scans, and what a cohort of 10,000 or 1,000,000 scans costs.

    python benchmarks/scaling.py [--engine auto] [--json FILE] [--figure FILE]

Full-size M²UNet with random weights on a drawn chest; processor seconds, so that other work on the machine counts
little. A straight line is fitted to each series; the cohort's cost is the lines at 300 slices and five bags of 200
patches, plus reading and writing as measured. Storage is what one scan's results take.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from m2unet.config import load_config
from m2unet.ct.prepare import prepare_volume
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume, from_source
from m2unet.ct.write import write_mask, write_volume
from m2unet.inference.engine import accelerate
from m2unet.inference.lobes import segment_lobes
from m2unet.inference.severity import estimate_severity
from m2unet.workflows.train import seeded_model

CPU = torch.device("cpu")
SLICES = (4, 8, 16)
PATCHES = (25, 50, 100)
SCANS = (1, 2, 4)
TYPICAL = {"slices": 300, "patches": 1000}


def chest(slices: int, side: int = 512) -> Volume:
    """An elliptic trunk with two lungs, noise throughout; lungs in every slice."""
    rng = np.random.default_rng(0)
    z, y, x = np.ogrid[-1 : 1 : slices * 1j, -1 : 1 : side * 1j, -1 : 1 : side * 1j]
    array = np.where((x / 0.9) ** 2 + (y / 0.75) ** 2 < 1, 40.0, -1000.0) + np.zeros((slices, 1, 1))
    for place in (-1, 1):
        array[((x - place * 0.42) / 0.3) ** 2 + (y / 0.55) ** 2 + 0 * z < 1] = -850
    array += rng.normal(0, 20, array.shape)
    return from_source(array.clip(-1024, 3000).astype(np.int16), (4.0, 0.7, 0.7))


def spent(work: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def line(series: dict[int, float]) -> dict[str, float]:
    """Slope and intercept of the least-squares line."""
    slope, intercept = np.polyfit(list(series), list(series.values()), 1)
    return {"slope": float(slope), "intercept": float(intercept)}


def measure(engine: str) -> dict[str, Any]:
    """The three series, and reading and writing of one scan."""
    config = load_config("paper")
    random = seeded_model(config)
    with torch.no_grad():  # random lobes at the edge of a region would have everything computed again
        random.get_parameter("decoder.head.bias")[0] = 100.0
    network, name = accelerate(random, engine, CPU)
    volumes = {slices: chest(slices) for slices in SLICES}
    scans = {slices: prepare_volume(volume, config.prepare) for slices, volume in volumes.items()}
    segment_lobes(network, scans[SLICES[0]], config, device=CPU)  # compiles what is compiled at first use
    lobes = {s: spent(lambda s=s: segment_lobes(network, scans[s], config, device=CPU)) for s in SLICES}
    severity = {}
    for patches in PATCHES:
        bags = config.model_copy(update={"bag": config.bag.model_copy(update={"size": patches})})
        severity[patches] = spent(
            lambda bags=bags: estimate_severity(network, scans[SLICES[1]], bags, seed=0, device=CPU, bags=1)
        )
    many = {n: spent(lambda n=n: [prepare_volume(volumes[SLICES[1]], config.prepare) for _ in range(n)]) for n in SCANS}
    with tempfile.TemporaryDirectory() as folder:
        path, mask = Path(folder) / "scan.nii.gz", Path(folder) / "lobes.nii.gz"
        volume = volumes[SLICES[-1]]
        write_volume(volume, path)
        read = spent(lambda: read_scan(path, accept=("lungs-absent",))) / SLICES[-1]
        codes = ((volume.array < -700) & (np.abs(volume.array) < 1000)).astype(np.uint8)
        write = spent(lambda: write_mask(volume, codes, mask)) / SLICES[-1]
        sizes = {"scan_mib_a_slice": path.stat().st_size / 2**20 / SLICES[-1]}
    return {
        "engine": name,
        "lobes_by_slices": lobes,
        "severity_by_patches": severity,
        "prepare_by_scans": many,
        "read_a_slice": read,
        "write_a_slice": write,
        **sizes,
    }


def project(found: dict[str, Any]) -> dict[str, Any]:
    """Core-hours of cohorts, by stage, for a typical scan."""
    slices, patches = TYPICAL["slices"], TYPICAL["patches"]
    lobes, severity = line(found["lobes_by_slices"]), line(found["severity_by_patches"])
    prepare = line(found["prepare_by_scans"])["slope"] / SLICES[1] * slices
    scan = {
        "read": found["read_a_slice"] * slices,
        "prepare": prepare,
        "lobes": lobes["slope"] * slices,
        "severity": severity["slope"] * patches,
        "write": 2 * found["write_a_slice"] * slices,
    }
    total = sum(scan.values())
    return {
        "core_seconds_a_scan": {**scan, "total": total},
        "core_hours": {count: count * total / 3600 for count in (10_000, 1_000_000)},
        "tib_of_scans": {count: count * found["scan_mib_a_slice"] * slices / 2**20 for count in (10_000, 1_000_000)},
        "lines": {"lobes": lobes, "severity": severity},
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """The three series with their lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    panels = (("lobes_by_slices", "slices"), ("severity_by_patches", "patches"), ("prepare_by_scans", "scans"))
    for axes, (name, label) in zip(figure.subplots(1, 3), panels, strict=True):
        series = found[name]
        fitted = line(series)
        at = np.array([0, max(series)])
        axes.plot(list(series), list(series.values()), "o", color="#1f5fa8")
        axes.plot(at, fitted["slope"] * at + fitted["intercept"], color="#888", linewidth=1)
        axes.set_xlabel(label)
        axes.set_ylabel("processor seconds")
        axes.set_title(f"{name.split('_')[0]}: {fitted['slope']:.3g} s each", fontsize=10)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, project, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = measure(options.engine)
    text = json.dumps({**found, **project(found), "load": os.getloadavg()[0]})
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.figure:
        draw(found, options.figure)


if __name__ == "__main__":
    main()
