"""How well opacity, volumes and scores are measured, on phantoms whose truth is known.

    python benchmarks/quantify.py --scans 20 --seed 21 --out quantify.md

Lobes are the true ones, so that what is measured is the opacity rule alone; with ``--model runs/demo`` they are that
model's, tidied as for a user, and the errors are those of lobes and rule together. Patients with every extent of
disease are among the scans, from a few voxels to most of the lung. The rule's scales were chosen on other seeds.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBE_CODES, LOBES
from m2unet.evaluation.segmentation import segmentation_metrics
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor
from m2unet.phantom.cohort import CohortConfig, plan_cohort
from m2unet.phantom.disease import CONSOLIDATION
from m2unet.phantom.scan import PhantomScan, make_scan
from m2unet.quantify.airways import find_airways
from m2unet.quantify.opacity import OpacityConfig
from m2unet.quantify.quantities import gather, quantify


@dataclass(frozen=True)
class Row:
    """One scan: true and found opacity, agreement, errors."""

    true_percent: float
    found_percent: float
    dice: float | None
    common: int
    total: int
    lobe_errors: list[float]
    volume_errors: list[float]
    region_steps: list[int]
    lobe_steps: list[int]
    sums: tuple[int, int] | None
    seconds: float
    lobe_dice: float | None
    lung_volume_error: float


def lobes_of(phantom: PhantomScan, predictor: Predictor | None) -> NDArray[np.uint8]:
    """The true lobes, or the predicted ones as a user gets them."""
    if predictor is None:
        return phantom.lobes
    found = predictor.predict(phantom.volume, severity=False).lobes
    assert found is not None
    return postprocess_lobes(found, phantom.volume.voxel_ml).mask


def measure(phantom: PhantomScan, predictor: Predictor | None = None) -> Row:
    """Quantify one phantom and set it beside its truth."""
    lobes = lobes_of(phantom, predictor)
    array, spacing = phantom.volume.array, phantom.volume.spacing_mm
    inside = np.isin(phantom.lobes, LOBE_CODES)
    truth = np.where(phantom.lesions == CONSOLIDATION, 2, (phantom.lesions > 0).astype(np.uint8)) * inside
    start = time.perf_counter()
    found = quantify(array, lobes, spacing)
    seconds = time.perf_counter() - start
    airways = find_airways(array, phantom.lobes, spacing)
    ideal = gather(array, phantom.lobes, spacing, truth.astype(np.uint8), airways=airways, config=OpacityConfig())
    hit = found.opacity_mask > 0
    common, total = int(np.sum(hit & (truth > 0))), int(hit.sum() + np.sum(truth > 0))
    names = [lobe.abbreviation for lobe in LOBES]
    volumes = zip(phantom.truth.lobe_ml, (found.volumes[name].volume_ml for name in names), strict=True)
    sums = (found.severity_score.total, ideal.severity_score.total)
    return Row(
        true_percent=float(100 * np.mean(truth[inside] > 0)),
        found_percent=float(found.opacity["lungs"].opacity_percent or 0),
        dice=2 * common / total if total else None,
        common=common,
        total=total,
        lobe_errors=_gaps([(found.opacity[n].opacity_percent, ideal.opacity[n].opacity_percent) for n in names]),
        volume_errors=[abs(ours - true) / true * 100 for true, ours in volumes if ours is not None and true > 0],
        region_steps=_steps(found.severity_score.parts, ideal.severity_score.parts),
        lobe_steps=_steps(found.lobar_score.parts, ideal.lobar_score.parts),
        sums=None if None in sums else sums,  # type: ignore[arg-type]
        seconds=seconds,
        lobe_dice=segmentation_metrics(phantom.lobes, lobes).dsc,
        lung_volume_error=100 * float(np.isin(lobes, LOBE_CODES).sum() / inside.sum() - 1),
    )


def _gaps(pairs: list[tuple[float | None, float | None]]) -> list[float]:
    return [abs(a - b) for a, b in pairs if a is not None and b is not None]


def _steps(ours: object, true: object) -> list[int]:
    assert isinstance(ours, dict) and isinstance(true, dict)
    return [abs(ours[k] - true[k]) for k in ours if ours[k] is not None and true[k] is not None]


def table(rows: list[Row], size: str, seed: int) -> str:
    """The Markdown table."""

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    steps = np.array([s for r in rows for s in r.region_steps])
    lobar = np.array([s for r in rows for s in r.lobe_steps])
    sums = [r.sums for r in rows if r.sums is not None]
    common = sum(r.common for r in rows)
    volumes = [e for r in rows for e in r.volume_errors]
    errors = [r.found_percent - r.true_percent for r in rows]
    lines = [
        f"| {len(rows)} {size} phantoms, seed {seed} | |",
        "|---|---:|",
        f"| true opacity, percent of the lungs: median (range) | {_range([r.true_percent for r in rows])} |",
        f"| mean Dice of lobes | {mean([r.lobe_dice or 0 for r in rows]):.3f} |",
        f"| Dice of opacity, all voxels of all scans | {2 * common / sum(r.total for r in rows):.3f} |",
    ]
    for least, most in ((0, 1), (1, 5), (5, 101)):
        held = [r.dice for r in rows if r.dice is not None and least <= r.true_percent < most]
        if held:
            name = f"{least} % or more" if most > 100 else f"{least}-{most} %"
            lines.append(f"| mean Dice of scans with {name} truly opaque | {mean(held):.3f} (n = {len(held)}) |")
    lines += [
        f"| opacity of both lungs: mean error, points | {mean([abs(e) for e in errors]):.2f} |",
        f"| opacity of both lungs: mean bias, points | {mean(errors):+.2f} |",
        f"| opacity of a lobe: mean error, points | {mean([e for r in rows for e in r.lobe_errors]):.2f} |",
        f"| lobe volume: mean error, percent | {mean(volumes):.2f} |",
        f"| lobe volume: largest error, percent | {max(volumes):.2f} |",
        f"| lobe volumes within 3 % | {100 * mean([float(e <= 3) for e in volumes]):.0f} % |",
        f"| volume of both lungs: mean error, percent | {mean([abs(r.lung_volume_error) for r in rows]):.2f} |",
        f"| regions (0-2) scored exactly | {100 * mean(list(steps == 0)):.1f} % |",
        f"| regions within one step | {100 * mean(list(steps <= 1)):.1f} % |",
        f"| lobes (0-5) scored exactly | {100 * mean(list(lobar == 0)):.1f} % |",
        f"| lobes within one step | {100 * mean(list(lobar <= 1)):.1f} % |",
        f"| severity score (0-40): scans that have one | {len(sums)} |",
        *_sum_lines(np.array(sums)),
        f"| seconds a scan, one thread | {mean([r.seconds for r in rows]):.1f} |",
    ]
    return "\n".join(lines) + "\n"


def _sum_lines(sums: NDArray[np.int64]) -> list[str]:
    if not len(sums):
        return []
    return [
        f"| severity score (0-40): mean error | {np.abs(sums[:, 0] - sums[:, 1]).mean():.2f} |",
        f"| same side of 19.5 | {100 * np.mean((sums > 19.5)[:, 0] == (sums > 19.5)[:, 1]):.0f} % |",
    ]


def _range(values: list[float]) -> str:
    return f"{np.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scans", type=int, default=20)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--size", choices=("small", "paper"), default="small")
    parser.add_argument("--model", type=Path, help="a run folder whose model is to find the lobes")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    config = CohortConfig(size=options.size, scans=options.scans, patients=options.scans, severe_fraction=0.4)
    plan = plan_cohort(config, seed=options.seed)
    predictor = Predictor.load(options.model) if options.model else None
    rows = []
    for number, scan in enumerate(plan.scans, 1):
        rows.append(measure(make_scan(plan, scan.scan_id), predictor))
        last = rows[-1]
        print(f"{number}: true {last.true_percent:.1f} % found {last.found_percent:.1f} % Dice {last.dice}", flush=True)
    text = table(rows, options.size, options.seed)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
