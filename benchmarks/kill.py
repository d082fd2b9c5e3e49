"""Kill -9 at random moments: prepare, train, crossval, predict and reproduce on a small cohort, again and again.

    python benchmarks/kill.py [--kills 50] [--seed 0] [--json FILE]

Every command is started again after each kill, as a user would (``--resume`` where there is such an option). At the end
the stores, the weights, the folds' predictions, the masks and the results must equal those of an undisturbed run. Exits
with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TINY = [
    "bag.size=6", "bag.patch=32", "bag.test_bags=2", "model.width=4", "model.deep_width=8", "model.instance_concepts=8",
    "model.bag_concepts=4", "prepare.inplane_mm=5", "prepare.min_box=32", "train.epochs=6", "train.validate_every=1",
]  # fmt: skip
SKIPPED = (".png", ".svg", ".html", ".js", ".log")
TIMES = ("seconds.json", "seconds.csv")
REPRODUCED = ("--only", "table5", "--folds", "3", "--fold", "0")
"""Two trainings of one fold, and their table."""
VOLATILE = {"seconds", "processor_seconds_a_fold", "versions", "source_fingerprint"}
"""Entries of JSON files that differ between any two runs."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: for the report.
        arguments: of ``m2unet``.
        resume: what is added after it was started once.
    """

    name: str
    arguments: tuple[str, ...]
    resume: tuple[str, ...] = ()


def steps(manifest: Path, out: Path) -> list[Step]:
    """The commands, in order."""
    preset = ["--preset", "demo", *[part for change in TINY for part in ("--set", change)]]
    store = ["--store", str(out / "store")]
    return [
        Step("prepare", ("prepare", str(manifest), "--out", str(out / "store"), *preset)),
        Step("train", ("train", str(manifest), "--out", str(out / "run"), *store, *preset), ("--resume",)),
        Step("crossval", ("crossval", str(manifest), "--out", str(out / "cv"), "--folds", "3", *store, *preset)),
        Step("predict", ("predict", str(manifest), "--model", str(out / "run"), "--out", str(out / "predicted"))),
        Step("reproduce", ("reproduce", "--cohort", str(manifest), "--out", str(out / "paper"), *REPRODUCED, *preset)),
    ]


def start(step: Step, *, again: bool) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own."""
    command = [sys.executable, "-m", "m2unet", *step.arguments, *(step.resume if again else ())]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, env={**os.environ}
    )


def whole(step: Step, *, again: bool = False) -> float:
    """Run a command to its end; returns its seconds."""
    started = time.monotonic()
    process = start(step, again=again)
    _, text = process.communicate()
    if process.returncode not in (0, 1):
        sys.exit(f"{step.name} failed ({process.returncode}): {text.decode()[-2000:]}")
    return time.monotonic() - started


def disturbed(step: Step, kills: int, typical: float, rng: random.Random) -> int:
    """Kill a command so many times at random moments, then let it finish; returns how often it was killed.

    What is finished is not done again, so a command gets shorter from kill to kill: the moments follow it.
    """
    done, attempts = 0, 0
    while done < kills and attempts < 4 * kills:
        attempts += 1
        process = start(step, again=attempts > 1)
        started = time.monotonic()
        try:
            process.wait(timeout=rng.uniform(0.1, 1.0) * typical)
            typical = time.monotonic() - started
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            done += 1
        _, text = process.communicate()
        if process.returncode not in (0, 1, -signal.SIGKILL):
            sys.exit(f"{step.name} failed after {done} kills: {text.decode()[-2000:]}")
    whole(step, again=kills > 0)
    return done


def fingerprints(out: Path) -> dict[str, str]:
    """Hash of every result file by its place; JSON without what differs between any two runs."""
    found = {}
    for path in sorted(out.rglob("*")):
        if not path.is_file() or "tensorboard" in path.parts or path.suffix in SKIPPED:
            continue
        if path.name in TIMES:
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps(_stable(json.loads(content)), sort_keys=True).replace(str(out), "").encode()
        elif path.suffix == ".gz":
            import gzip

            content = gzip.decompress(content)
        elif path.name == "metrics.csv":
            content = _without_seconds(content.decode())
        found[str(path.relative_to(out))] = hashlib.sha256(content).hexdigest()
    return found


def _stable(value: object) -> object:
    if isinstance(value, dict):
        return {k: _stable(v) for k, v in value.items() if k not in VOLATILE}
    return [_stable(v) for v in value] if isinstance(value, list) else value


def _without_seconds(text: str) -> bytes:
    rows = [line.split(",") for line in text.splitlines()]
    kept = [i for i, name in enumerate(rows[0]) if name != "seconds"]
    return "\n".join(",".join(row[i] for i in kept) for row in rows).encode()


def main() -> None:
    """Run undisturbed and disturbed, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--scans", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from m2unet.phantom.cohort import CohortConfig, plan_cohort
    from m2unet.phantom.writer import write_cohort

    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plan = plan_cohort(
            CohortConfig(size="small", scans=options.scans, patients=6, severe_fraction=0.5, lobe_masks="all"), 3
        )
        manifest = write_cohort(plan, root / "cohort", workers=1)
        typical = {step.name: whole(step) for step in steps(manifest, root / "calm")}
        killed = {}
        for number, step in enumerate(steps(manifest, root / "rough")):
            share = options.kills // len(typical) + (number < options.kills % len(typical))
            killed[step.name] = disturbed(step, share, typical[step.name], rng)
        calm, rough = fingerprints(root / "calm"), fingerprints(root / "rough")
    differing = sorted(name for name in calm.keys() | rough.keys() if calm.get(name) != rough.get(name))
    text = json.dumps({"kills": killed, "files": len(calm), "differing": differing})
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
