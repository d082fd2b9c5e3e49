"""How far can the answers be relied on? Calibration, abstention and unusual scans, on phantoms.

    python benchmarks/confidence.py runs/demo runs/demo/cohort/manifest.csv --out confidence

Severity alone of every scan that the run was not trained or validated on, appraised as ``m2unet evaluate`` does; then
the same scans spoilt (noise, an HU offset, upside down, blurred, one half missing), and how often each is noticed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from m2unet.cohort.manifest import read_manifest
from m2unet.ct.prepare import prepare_volume
from m2unet.ct.read import read_scan
from m2unet.inference.predictor import Predictor
from m2unet.inference.severity import estimate_severity
from m2unet.workflows.evaluate import evaluate_scans

Spoil = Callable[[NDArray[np.int16], np.random.Generator], NDArray[np.floating]]

SPOILT: dict[str, Spoil] = {
    "as it is": lambda array, rng: array.astype(np.float32),
    "noise of 400 HU": lambda array, rng: array + rng.normal(0, 400, array.shape),
    "all 300 HU higher": lambda array, rng: array + 300.0,
    "head to feet": lambda array, rng: array[::-1].astype(np.float32),
    "blurred": lambda array, rng: gaussian_filter(array.astype(np.float32), (0, 4, 4)),
    "left half missing": lambda array, rng: np.where(np.arange(array.shape[2]) < array.shape[2] // 2, array, -1000.0),
}


def spoilt(predictor: Predictor, paths: list[Path], seed: int) -> dict[str, float]:
    """Share of scans beyond the limit of distance, by how they were spoilt."""
    reference = predictor.confidence.reference
    if reference is None:
        raise SystemExit(f"the model has no reference: {predictor.confidence.reference_reason}")
    noticed: dict[str, list[bool]] = {name: [] for name in SPOILT}
    for number, path in enumerate(paths):
        volume = read_scan(path)
        for name, spoil in SPOILT.items():
            rng = np.random.default_rng([seed, number])
            array = np.clip(spoil(volume.array, rng), -1024, 3071).astype(np.int16)
            scan = prepare_volume(replace(volume, array=np.ascontiguousarray(array)), predictor.config.prepare)
            found = estimate_severity(predictor.network, scan, predictor.config, seed=seed, device=predictor.device)
            noticed[name].append(reference.distance(found.embedding) > reference.limit)
    return {name: float(np.mean(hits)) for name, hits in noticed.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scans", type=int, help="at most so many")
    parser.add_argument("--spoil", type=int, default=10, help="so many scans are spoilt")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    predictor = Predictor.load(options.run)
    split, seen = options.run / "split.json", set()
    if split.is_file():
        uses = json.loads(split.read_text(encoding="utf-8"))
        seen = {scan_id for use in ("train", "validation") for scan_id in uses[use]}
    rows = [r for r in read_manifest(options.manifest).rows if r.scan_id not in seen and r.severity is not None]
    rows = [replace(row, lobes=None) for row in rows][: options.scans]
    evaluation = evaluate_scans(predictor, rows, options.out, seed=options.seed, run=options.run)
    print((options.out / "results.md").read_text(encoding="utf-8"))
    print(json.dumps(evaluation.appraisal.flat(), indent=1))
    for name, share in spoilt(predictor, [row.image for row in rows[: options.spoil]], options.seed).items():
        print(f"beyond the limit, {name:<20} {share:.2f}")


if __name__ == "__main__":
    main()
