"""One GPU at full size: ms a training step, share of the bf16 ceiling, memory, seconds a scan, and what Table II costs.

    python benchmarks/gpu.py [--device cuda] [--compile] [--json FILE]
    python benchmarks/gpu.py --device cpu --tiny        # the script itself, tried without a GPU

The ceiling is a large bf16 matrix product measured in the same run. Table II's row is 5 folds x 100 epochs x the 466
training scans of 666, the severe ones repeated until balanced (51 of 242 patients are severe: about 740 bags), in steps
of four bags, one of which has lobes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m2unet.config import Config, load_config
from m2unet.ct.prepare import prepare_volume
from m2unet.ct.volume import from_source
from m2unet.inference.engine import accelerate
from m2unet.inference.lobes import segment_lobes
from m2unet.inference.severity import estimate_severity
from m2unet.training.distributed import World, choose_device, device_name
from m2unet.training.fit import BatchMaker, compile_parts
from m2unet.training.losses import joint_loss
from m2unet.training.schedule import make_optimiser
from m2unet.workflows.train import seeded_model

sys.path.insert(0, str(Path(__file__).parent))
from paper_step import random_bag

TINY = ["model.width=4", "model.deep_width=8", "bag.size=2", "bag.patch=32", "prepare.min_box=64", "bag.test_bags=1"]
FOLDS, EPOCHS, BAGS = 5, 100, 740
MACS = {"encoder": 72_000, "decoder": 200_000}
"""Multiplications and additions a pixel of a full-size network, rounded; a step costs three times the forward pass."""


def timed(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median seconds of one call, the device idle before and after."""
    seconds = []
    for _ in range(repeats + 1):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ceiling(device: torch.device, side: int) -> float:
    """TFLOP/s of a bf16 matrix product."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / timed(lambda: a @ a, device, 5) / 1e12


def training(config: Config, device: torch.device, masked: int, repeats: int) -> dict[str, float | None]:
    """One step of four bags, ``masked`` of them with lobes."""
    model = seeded_model(config).to(device).train().to(memory_format=torch.channels_last)
    model.checkpointing = config.train.checkpointing is True
    if config.train.compile:
        compile_parts(model)
    optimiser = make_optimiser(model, config.train)
    bags = [random_bag(i, config.bag.size, config.bag.patch, masked=i < masked) for i in range(4)]
    batch = BatchMaker(config)(bags).to(device)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            output = model(batch, lobes_for=batch.has_lobes if masked else None)
        joint_loss(output, batch, lambda_mil=config.train.lambda_mil, world=World(device=device)).total.backward()
        optimiser.step()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = timed(step, device, repeats)
    pixels = config.bag.size * config.bag.patch**2
    flops = 2 * 3 * pixels * (4 * MACS["encoder"] + masked * MACS["decoder"])
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return {"ms": 1000 * seconds, "tflops": flops / seconds / 1e12, "peak_gib": peak}


def prediction(config: Config, device: torch.device, shape: tuple[int, int, int]) -> float:
    """Seconds a scan: preparation, lobes and severity, from a volume in memory."""
    z, y, x = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    array = np.where((x / 0.9) ** 2 + (y / 0.8) ** 2 < 1, 40, -1000) + np.zeros(shape)
    for side in (-1, 1):
        array[((x - side * 0.42) / 0.3) ** 2 + (y / 0.5) ** 2 + (z / 0.85) ** 2 < 1] = -850
    volume = from_source(array.astype(np.int16), (300 / shape[0], 350 / shape[1], 350 / shape[2]))
    network, _ = accelerate(seeded_model(config), "torch", device)

    def predict() -> None:
        scan = prepare_volume(volume, config.prepare)
        segment_lobes(network, scan, config, device=device)
        estimate_severity(network, scan, config, seed=0, device=device)

    return timed(predict, device, 1)


def main() -> None:
    """Measure, project, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true", help="a small network and bags, to try the script")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = choose_device(options.device)
    changes = [f"train.compile={str(options.compile).lower()}", "train.checkpointing=true"]
    config = load_config("paper", [*changes, *(TINY if options.tiny else [])])
    repeats = 1 if options.tiny else options.repeats
    top = ceiling(device, 256 if options.tiny else 8192)
    steps: dict[str, Any] = {name: training(config, device, n, repeats) for name, n in (("unmasked", 0), ("masked", 1))}
    for step in steps.values():
        step["share_of_ceiling"] = step["tflops"] / top
    shape = (12, 64, 80) if options.tiny else (300, 512, 512)
    found = {
        "device": device_name(device),
        "tiny": options.tiny,
        "ceiling_tflops": top,
        "training": steps,
        "seconds_a_scan": prediction(config, device, shape),
        "hours_table_2_row": FOLDS * EPOCHS * BAGS / 4 * steps["masked"]["ms"] / 3.6e6,
        "torch": torch.__version__,
    }
    text = json.dumps(found)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
