"""Measure the scans of phantom courses, and of repeats on the same day, for ``benchmarks/followup.py``.

    python benchmarks/followup_scans.py --patients 30 --scans 3 --seed 31 --repeats --out repeats.jsonl
    python benchmarks/followup_scans.py --patients 40 --scans 4 --seed 77 --out courses.jsonl

One JSON line a scan: its truth, the protocol, and what :func:`m2unet.quantify.quantities.quantify` finds with the true
lobes, or with ``--model RUN`` in the lobes that a model predicts. A repeat shows the same disease on the same day with
another protocol and another breath.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from m2unet.phantom.cohort import CohortPlan, ScanPlan, lung_box
from m2unet.phantom.course import BREATH, CourseConfig, plan_course
from m2unet.phantom.protocol import SITES, draw_protocol
from m2unet.phantom.scan import PhantomScan, make_patient, make_scan
from m2unet.quantify.inflation import aerated_hu
from m2unet.quantify.quantities import quantify


def with_repeats(plan: CohortPlan, seed: int) -> CohortPlan:
    """The plan with each scan followed by a repeat: same state and day, another protocol, breath and noise."""
    rng = np.random.default_rng([seed, 0x4E])
    scans: list[ScanPlan] = []
    for scan in plan.scans:
        lungs = lung_box(plan.patient_of(scan).anatomy)
        again = replace(
            scan,
            scan_id=f"{scan.scan_id}r",
            seed=int(rng.integers(2**62)),
            protocol=draw_protocol(rng, int(rng.integers(len(SITES))), lungs, plan.config.size),
            confounders=plan.patient_of(scan).confounders.with_scan(rng),
            inspiration=float(rng.uniform(*BREATH)),
        )
        scans += [scan, again]
    return replace(plan, scans=tuple(scans))


def rows(plan: CohortPlan, predictor: Any = None) -> Iterator[dict[str, Any]]:
    """One row a scan."""
    for patient_plan in plan.patients:
        patient = make_patient(patient_plan)
        for scan in plan.scans:
            if scan.patient_id == patient_plan.patient_id:
                yield row(scan, make_scan(plan, scan.scan_id, patient), predictor)


def row(scan: ScanPlan, made: PhantomScan, predictor: Any = None) -> dict[str, Any]:
    """Truth and figures of one scan."""
    lobes, severity = made.lobes, None
    if predictor is not None:
        from m2unet.inference.postprocess import postprocess_lobes

        prediction = predictor.predict(made.volume)
        lobes = postprocess_lobes(prediction.lobes, made.volume.voxel_ml).mask
        if prediction.severity is not None:
            severity = [prediction.severity.probability, prediction.severity.spread]
    found = quantify(made.volume.array, lobes, made.volume.spacing_mm, voxel_ml=made.volume.voxel_ml)
    share = made.truth.lobe_ml / made.truth.lobe_ml.sum()
    return {
        "scan": scan.scan_id,
        "patient": scan.patient_id,
        "date": scan.date.isoformat(),
        "slice_mm": made.volume.spacing_mm[0],
        "thickness_mm": scan.protocol.thickness_mm,
        "breath": scan.inspiration,
        "aerated_hu": aerated_hu(made.volume.array, lobes, found.opacity_mask),
        "true_lobes": [100 * e for e in scan.state.extents],
        "true_percent": float(100 * share @ np.asarray(scan.state.extents)),
        "true_score": scan.state.score,
        "severity": severity,
        "parts": {name: {**found.volumes[name].to_dict(), **found.opacity[name].to_dict()} for name in found.volumes},
        "scores": {score.name: score.total for score in (found.severity_score, found.lobar_score)},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--patients", type=int, default=30)
    parser.add_argument("--scans", type=int, default=3)
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--size", choices=("small", "paper"), default="small")
    parser.add_argument("--repeats", action="store_true")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    plan = plan_course(CourseConfig(options.size, options.patients, options.scans), options.seed)
    if options.repeats:
        plan = with_repeats(plan, options.seed)
    predictor = None
    if options.model:
        from m2unet.inference.predictor import Predictor

        predictor = Predictor.load(options.model)
    with options.out.open("w", encoding="utf-8") as file:
        for found in rows(plan, predictor):
            file.write(json.dumps(found) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
