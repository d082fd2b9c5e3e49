"""One optimiser step of the ``paper`` preset at full size: seconds and peak memory.

    python benchmarks/paper_step.py [--bags 4] [--masked 1] [--patches 200] [--set train.precision=bf16] [--json FILE]

Random patches stand for scans: neither time nor memory depends on what they show. One bag in four has lobes, about the
share of the paper's cohort (152 masks, 666 scans).
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from m2unet.bags.bag import Bag
from m2unet.config import load_config
from m2unet.training.distributed import World
from m2unet.training.fit import BatchMaker
from m2unet.training.losses import joint_loss
from m2unet.training.schedule import make_optimiser
from m2unet.workflows.train import seeded_model


def random_bag(number: int, patches: int, side: int, *, masked: bool) -> Bag:
    """A bag of noise, with random lobes if masked."""
    rng = np.random.default_rng(number)
    shape = (patches, side, side)
    lobes = rng.integers(0, 7, shape, dtype=np.uint8) if masked else None
    corners = np.zeros((patches, 3), dtype=np.int32)
    return Bag(f"noise{number}", rng.integers(-1200, 0, shape, dtype=np.int16), lobes, corners, None, number % 2)


def measure(bags: int, masked: int, patches: int, changes: list[str]) -> dict[str, object]:
    """Run one step and say what it took."""
    config = load_config("paper", [f"bag.size={patches}", f"train.bags_per_step={bags}", *changes])
    model = seeded_model(config).train()
    model.checkpointing = config.train.checkpointing
    optimiser = make_optimiser(model, config.train)
    side = config.bag.patch
    batch = BatchMaker(config)([random_bag(i, patches, side, masked=i < masked) for i in range(bags)])
    started, worked = time.perf_counter(), time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.train.precision == "bf16"):
        output = model(batch, lobes_for=batch.has_lobes if masked else None)
    losses = joint_loss(output, batch, lambda_mil=config.train.lambda_mil, world=World())
    del output
    losses.total.backward()
    optimiser.step()
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "bags": bags,
        "masked": masked,
        "patches": patches,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - worked, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2),
        "loss": float(losses.total.detach()),
        "precision": config.train.precision,
        "checkpointing": config.train.checkpointing,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bags", type=int, default=4)
    parser.add_argument("--masked", type=int, default=1)
    parser.add_argument("--patches", type=int, default=200)
    parser.add_argument("--set", action="append", default=[], help="override a setting, e.g. train.precision=bf16")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = json.dumps(measure(options.bags, options.masked, options.patches, options.set))
    print(found)
    if options.json:
        options.json.write_text(found + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
