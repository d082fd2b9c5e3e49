"""How far can the answers be relied on? Calibration, operating point and abstention, on phantoms.

    python benchmarks/confidence.py runs/demo runs/demo/cohort/manifest.csv --out confidence

Severity alone of every scan that the run was not trained or validated on, appraised as ``m2unet evaluate`` does.
Unusual scans are measured by ``unusual.py``. Phantom cohorts of all seeds name their patients alike: give ``--fresh``
with a cohort of another seed, and leakage is sought by voxels alone.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from m2unet.cohort.manifest import read_manifest
from m2unet.inference.predictor import Predictor
from m2unet.workflows.evaluate import evaluate_scans


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scans", type=int, help="at most so many")
    parser.add_argument("--fresh", action="store_true", help="the manifest is of another cohort: leave no scan out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    predictor = Predictor.load(options.run)
    split, seen = options.run / "split.json", set()
    if split.is_file() and not options.fresh:
        uses = json.loads(split.read_text(encoding="utf-8"))
        seen = {scan_id for use in ("train", "validation") for scan_id in uses[use]}
    rows = [r for r in read_manifest(options.manifest).rows if r.scan_id not in seen and r.severity is not None]
    rows = [replace(row, lobes=None) for row in rows][: options.scans]
    if options.fresh:
        rows = [replace(row, patient_id=f"fresh-{row.patient_id}") for row in rows]
    evaluation = evaluate_scans(predictor, rows, options.out, seed=options.seed, run=options.run)
    print((options.out / "results.md").read_text(encoding="utf-8"))
    print(json.dumps(evaluation.appraisal.flat(), indent=1))


if __name__ == "__main__":
    main()
