"""Lobes alone, severity alone: seconds a scan, patches a second, and the share of a plain convolution's speed.

    python benchmarks/parts.py --scan DIR [--engine NAME] [--slices 24] [--repeats 3] [--json FILE]

The full-size M²UNet (64 channels, random weights). *Lobes*: the lungs' surroundings of every slice, by the time of
``--slices`` whole slices of the scan. *Severity*: one bag of 200 patches of 128 x 128. The yardstick, measured in turns
with them in the same process: one convolution of 64 to 64 channels, 3 x 3, on an input of the same shape, in bf16 where
this processor multiplies it and in float32, by torch, channels last. GFLOP/s count two operations for each
multiplication and addition, counted by torch on the network with normalisations and up-samplings folded.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from m2unet.config import load_config
from m2unet.ct.prepare import PreparedScan, prepare_volume
from m2unet.ct.read import read_scan
from m2unet.inference.engine import accelerate, fold
from m2unet.inference.lobes import segment_lobes
from m2unet.inference.region import plan_regions
from m2unet.inference.severity import estimate_severity
from m2unet.models.m2unet import M2UNet
from m2unet.workflows.train import seeded_model

CPU = torch.device("cpu")
SIDE = 128
CHANNELS = 64
YARDSTICKS = {"lobes": "convolution of a slice", "severity": "convolution of patches"}
TYPES = {"bf16": torch.bfloat16, "float32": torch.float32}


def operations(work: Callable[[], object]) -> float:
    """Floating-point operations of what torch computes meanwhile: convolutions and products of matrices."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def clocked(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def plain_convolution(shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """A convolution over ``[n, y, x]`` pixels of 64 channels, and its operations."""
    count, height, width = shape
    layer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False).to(dtype).to(memory_format=torch.channels_last)
    images = torch.rand(count, CHANNELS, height, width).to(dtype).contiguous(memory_format=torch.channels_last)

    def work() -> object:
        with torch.inference_mode():
            return layer(images)

    work()
    return work, 2.0 * count * height * width * CHANNELS * CHANNELS * 9


def middle(scan: PreparedScan, slices: int) -> PreparedScan:
    """Some slices of the middle of the lungs, whole planes."""
    start = max(0, len(scan.array) // 2 - slices // 2)
    part = np.ascontiguousarray(scan.array[start : start + slices])
    return replace(scan, array=part, volume_shape=(len(part), *scan.volume_shape[1:]), lung_boxes=None, _cache={})


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything in turns, the best of the repeats."""
    config = load_config("paper", ["bag.test_bags=1", *options.set])
    network = seeded_model(config)
    assert isinstance(network, M2UNet)
    folded = fold(network.eval())
    model, name = accelerate(network, options.engine, CPU)
    volume = read_scan(options.scan)
    scan = prepare_volume(volume, config.prepare)
    few = middle(scan, options.slices)
    height, width = few.array.shape[1:]
    pixels = sum((r.stop - r.start) * r.height * r.width for r in plan_regions(scan))
    patch = torch.zeros(1, folded.in_channels, SIDE, SIDE)
    a_lobe_pixel = operations(lambda: folded.segment(patch)) / SIDE**2
    a_patch = operations(lambda: folded.embed(patch))
    works: dict[str, tuple[Callable[[], object], float]] = {
        "lobes": (lambda: segment_lobes(model, few, config, device=CPU), a_lobe_pixel * few.array.size),
        "severity": (lambda: estimate_severity(model, scan, config, seed=0, device=CPU), a_patch * config.bag.size),
    }
    for kind, dtype in TYPES.items():
        works[f"convolution of a slice, {kind}"] = plain_convolution((1, height, width), dtype)
        works[f"convolution of patches, {kind}"] = plain_convolution((16, SIDE, SIDE), dtype)
    best: dict[str, tuple[float, float]] = {}
    for _ in range(options.repeats):
        for what, (work, _) in works.items():
            taken = clocked(work)
            best[what] = min(best.get(what, taken), taken)
    rate = {what: operations_ / best[what][0] / 1e9 for what, (_, operations_) in works.items()}
    top = {part: max(rate[f"{kindred}, {kind}"] for kind in TYPES) for part, kindred in YARDSTICKS.items()}
    return {
        "engine": name,
        "seconds_lobes_of_the_scan": round(best["lobes"][0] * pixels / few.array.size, 2),
        "seconds_severity_one_bag": round(best["severity"][0], 2),
        "patches_a_second": round(config.bag.size / best["severity"][0], 1),
        "pixels_of_the_regions": pixels / volume.array.size,
        "gflops_a_second": {what: round(value, 1) for what, value in rate.items()},
        "share_of_plain_convolution": {part: round(rate[part] / top[part], 3) for part in YARDSTICKS},
        "processor_seconds": {what: round(taken[1], 2) for what, taken in best.items()},
    }


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--slices", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="override a setting of the paper's preset")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = measure(options)
    unit = 1 if sys.platform == "darwin" else 1024
    found |= {
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20),
        "threads": options.threads,
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    text = json.dumps(found)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
