"""What fine-tuning the shipped lobe model gains on a new site, by the number of annotated scans.

    python benchmarks/finetune.py --json finetune.json --out docs/images/finetune.png

The new site is one of the phantoms' scanners (slices of 5 to 10 mm, patients of their own); the shipped model has seen
no scan of it. With 1, 2, 5 and 10 annotated scans the same network is trained for the same number of steps, once from
the shipped weights (`m2unet train --init synthetic`) and once from random ones (`--init none`), and tested on the whole
volumes of unseen patients. Digital phantoms: engineering evidence, never clinical.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import stats

from m2unet.cohort.manifest import Manifest, ManifestRow, read_manifest
from m2unet.cohort.masks import read_lobe_mask
from m2unet.ct.read import read_scan
from m2unet.errors import M2UNetError
from m2unet.evaluation.segmentation import segmentation_metrics
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor
from m2unet.phantom.cohort import CohortConfig, plan_cohort
from m2unet.phantom.protocol import SITES
from m2unet.phantom.writer import write_cohort
from m2unet.workflows.finetune import FineTuneJob, fine_tune
from m2unet.workflows.run_folder import versions

SITE = "site-6"
TRAIN, TEST = 10, 8
Init = Literal["synthetic", "none"]


def new_site(folder: Path, seed: int) -> tuple[ManifestRow, ...]:
    """One scan each of so many patients of the site."""
    place = next(index for index, site in enumerate(SITES) if site.name == SITE)
    count = round(1.5 * (TRAIN + TEST) / SITES[place].weight)
    plan = plan_cohort(CohortConfig(size="small", patients=count, scans=count, lobe_masks="all"), seed)
    chosen = [scan for scan in plan.scans if scan.protocol.site == place][: TRAIN + TEST]
    rows = read_manifest(write_cohort(replace(plan, scans=tuple(chosen)), folder, workers=1)).rows
    assert len({row.patient_id for row in rows}) == TRAIN + TEST
    return rows


def dice(predictor: Predictor, rows: tuple[ManifestRow, ...]) -> list[float]:
    """Mean lobe Dice of every scan, tidied as `m2unet predict` does; a refused scan counts 0."""
    found = []
    for row in rows:
        volume = read_scan(row.image)
        assert row.lobes is not None
        try:
            prediction = predictor.predict(volume, severity=False)
        except M2UNetError as error:  # a network from scratch may find no lung at all
            print(f"{row.scan_id}: {type(error).__name__}", flush=True)
            found.append(0.0)
            continue
        assert prediction.lobes is not None
        tidied = postprocess_lobes(prediction.lobes, volume.voxel_ml).mask
        found.append(segmentation_metrics(read_lobe_mask(row.lobes, volume), tidied).dsc or 0.0)
    return found


def interval(values: list[float]) -> dict[str, float]:
    """Mean over scans and its 95 % interval (Student)."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return {"dice": round(float(np.mean(values)), 4), "half_interval": round(float(half), 4)}


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, help="picture")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=900)
    parser.add_argument("--numbers", type=int, nargs="+", default=[1, 2, 5, 10], help="annotated scans, at most 10")
    options = parser.parse_args()
    found: dict[str, object] = {"site": SITE, "steps": options.steps, "seed": options.seed, "test_scans": TEST}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = new_site(folder / "cohort", options.seed)
        train, test = rows[:TRAIN], rows[TRAIN:]
        shipped = interval(dice(Predictor.load(), test))
        print("shipped", shipped, flush=True)
        curves: dict[str, dict[int, dict[str, float]]] = {"synthetic": {}, "none": {}}
        inits: tuple[Init, ...] = ("synthetic", "none")
        for number in options.numbers:
            cohort = Manifest(folder / "cohort" / "manifest.csv", train[:number])
            for init in inits:
                started = time.perf_counter()
                job = FineTuneJob(
                    cohort, folder / f"{init}-{number}", init=init, steps=options.steps, seed=0, validation=0.0
                )
                run = fine_tune(job).run
                curves[init][number] = interval(dice(Predictor.load(run.path), test))
                took = time.perf_counter() - started
                print(init, number, curves[init][number], f"{took:.0f} s", flush=True)
                found |= {"shipped": shipped, "curves": curves, "versions": versions()}
                if options.json:
                    options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.out:
        draw(shipped, curves, options.out)


def draw(shipped: dict[str, float], curves: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Dice against the number of scans."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    names = {"synthetic": "from the shipped weights", "none": "from scratch"}
    for init, curve in curves.items():
        values = list(curve.values())
        axes.errorbar(
            list(curve),
            [v["dice"] for v in values],
            [v["half_interval"] for v in values],
            marker="o",
            capsize=3,
            label=names[init],
        )
    axes.axhline(shipped["dice"], color="0.4", linestyle="--", label="shipped weights as they are")
    axes.set(
        xlabel="annotated scans of the new site",
        ylabel="mean lobe Dice, unseen patients",
        xticks=list(curves["synthetic"]),
    )
    axes.set_title("Digital phantoms: engineering evidence, never clinical", fontsize=9)
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
