"""What the weight of severity in the joint loss does to lobes and to severity: M²UNet with several lambdas on one fold.

    python benchmarks/multitask.py --cohort cohort/manifest.csv --like runs/reproduction --out runs/multitask

Takes folds and prepared scans from a finished `m2unet reproduce`, so its M²UNet, Seg. only and Cls. only are the same
fold's and need no training here. Also says how well the very score that a phantom's label rests on tells the labels of
each fold's test scans, which nobody can surpass but by luck: labels are noisy on purpose.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from sklearn.metrics import accuracy_score, roc_auc_score

from m2unet.cohort.manifest import read_manifest
from m2unet.paper.plan import Experiment
from m2unet.phantom.severity import THRESHOLD
from m2unet.workflows.reproduce import Reproduction, Task
from m2unet.workflows.run_folder import RunFolder, read_json

FIGURES = ("auc", "accuracy", "dsc")


def figures(run: RunFolder) -> dict[str, float | None]:
    """What a finished run measured on its test scans."""
    stored = read_json(run.summary)["figures"]["per_scan"]
    return {name: stored[name]["estimate"] if name in stored else None for name in FIGURES}


def ceiling(manifest: Path, test: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """AUC and accuracy of the score at the peak, on which the label rests, and of the score on the day of the scan."""
    with (manifest.parent / "truth.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["scan_id"]: row for row in csv.DictReader(file)}
    labels = {row.scan_id: row.severity for row in read_manifest(manifest).rows}
    known = [scan for scan in test if labels[scan] is not None]
    truth = [labels[scan] for scan in known]
    found = {}
    for name in ("patient_score", "scan_score"):
        score = [float(rows[scan][name]) for scan in known]
        called = [value >= THRESHOLD for value in score]
        found[name] = {"auc": float(roc_auc_score(truth, score)), "accuracy": float(accuracy_score(truth, called))}
    return found


def main() -> None:
    """Train what is missing, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--like", type=Path, required=True, help="folder of a reproduction")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.02, 0.1])
    options = parser.parse_args()
    manifest = read_manifest(options.cohort)
    base = Reproduction(manifest, options.like, options.preset)
    splits = base.splits()
    split = splits[options.fold]
    rows: dict[str, dict[str, float | None]] = {
        name: figures(base.run_folder(Experiment(name), options.fold)) for name in ("cls_only", "seg_only", "m2unet")
    }
    for weight in options.lambdas:
        out = options.out / f"lambda-{weight:g}"
        out.mkdir(parents=True, exist_ok=True)
        if not (out / "store").exists():
            (out / "store").symlink_to((options.like / "store").resolve())
        job = Reproduction(manifest, out, options.preset, overrides=(f"train.lambda_mil={weight}",))
        error = Task(job, Experiment("m2unet"), options.fold, split)()
        if error:
            raise SystemExit(error)
        rows[f"m2unet, lambda {weight:g}"] = figures(job.run_folder(Experiment("m2unet"), options.fold))
        print(f"lambda {weight:g}", rows[f"m2unet, lambda {weight:g}"], flush=True)
    found = {
        "fold": options.fold,
        "preset": options.preset,
        "rows": rows,
        "labels": [ceiling(options.cohort, each.test) for each in splits],
    }
    text = json.dumps(found, indent=2)
    (options.out / "multitask.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
