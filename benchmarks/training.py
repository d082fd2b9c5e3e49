"""Training on one bag of 200 patches: bags a second and peak memory, with and without a mask, against a plain step.

    python benchmarks/training.py [--patches 200] [--repeats 1] [--json FILE]

*Plain*: float32, every activation kept, the decoder run for every bag. *Ours*: the decoder only where there is a mask,
and activations recomputed (``recompute``), or likewise in bf16 (``recompute-bf16``). Each case runs in
a process of its own, in turns, so that peak memory is that case's alone and other work hits all alike; processor
seconds stand beside wall seconds. One bag stands for a step of several: time and memory are proportional to bags.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from m2unet.config import load_config
from m2unet.training.distributed import World
from m2unet.training.fit import BatchMaker
from m2unet.training.losses import joint_loss
from m2unet.training.schedule import make_optimiser
from m2unet.workflows.train import seeded_model

sys.path.insert(0, str(Path(__file__).parent))
from paper_step import random_bag

CASES = ("plain", "recompute", "recompute-bf16")


def one(case: str, patches: int, *, masked: bool) -> dict[str, Any]:
    """One step of one bag in this process."""
    config = load_config("paper", [f"bag.size={patches}", "train.bags_per_step=1"])
    model = seeded_model(config).train().to(memory_format=torch.channels_last)
    model.checkpointing = case.startswith("recompute")
    optimiser = make_optimiser(model, config.train)
    batch = BatchMaker(config)([random_bag(0, patches, config.bag.patch, masked=masked)])
    wanted = torch.ones(1, dtype=torch.bool) if masked or case == "plain" else None
    started, worked = time.perf_counter(), time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case.endswith("bf16")):
        output = model(batch, lobes_for=wanted)
    joint_loss(output, batch, lambda_mil=config.train.lambda_mil, world=World()).total.backward()
    optimiser.step()
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "case": case,
        "masked": masked,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - worked,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20,
    }


def main() -> None:
    """Measure all cases, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--masked", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(one(options.one, options.patches, masked=options.masked)))
        return
    rows: dict[tuple[str, bool], dict[str, Any]] = {}
    for _ in range(options.repeats):
        for masked in (False, True):
            for case in options.cases:
                command = [sys.executable, __file__, "--one", case, "--patches", str(options.patches)]
                command += ["--threads", str(options.threads), *(["--masked"] if masked else [])]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                kept = rows.setdefault((case, masked), found)
                for name in ("seconds", "cpu_seconds", "peak_mib"):
                    kept[name] = round(min(kept[name], found[name]), 2)
    table = [{**row, "bags_per_second": round(1 / row["seconds"], 4)} for row in rows.values()]
    text = json.dumps(
        {"patches": options.patches, "load": os.getloadavg()[0], "torch": torch.__version__, "rows": table}
    )
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
