"""Is the heat map faithful? Deletion test, and mass on true lesions, on phantoms.

    python benchmarks/faithfulness.py runs/demo runs/demo/cohort/manifest.csv --scans 20 --json faithfulness.json

For each scan the tenth of the lung with the most heat is replaced by healthy lung of the same scan, and so are random
regions of the same size and smoothness; the change of the log-odds of severe is compared, over the same seeded bags.
Needs the true lobe and lesion masks, which phantoms have. Scans the run was trained on are left out (``--fresh``: none,
for a cohort of another seed, whose names are the same). Any method that gives severity by a network can be measured.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import wilcoxon

from m2unet.cohort.manifest import ManifestRow, read_manifest
from m2unet.cohort.masks import read_lobe_mask, read_mask
from m2unet.ct.prepare import prepare_volume
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.inference.explain import explain_severity, share_on
from m2unet.inference.predictor import Predictor
from m2unet.inference.severity import estimate_severity

SHARE = 0.1
"""Part of the lung that is replaced."""

REPEATS = 3
"""Random regions a scan."""

HEALTHY_BELOW_HU = -700


@dataclass(frozen=True)
class Result:
    """One scan: log-odds before and after, and shares of the positive heat."""

    scan_id: str
    severity: int | None
    log_odds: float
    drop_top: float
    drop_random: float
    drop_random_each: tuple[float, ...]
    heat_in_lungs: float | None
    heat_on_lesions: float | None
    lesions_of_lungs: float
    lungs_of_image: float


def log_odds(predictor: Predictor, volume: Volume, seed: int) -> float:
    """Mean log-odds over the bags."""
    scan = prepare_volume(volume, predictor.config.prepare)
    bags = np.clip(
        estimate_severity(predictor.network, scan, predictor.config, seed=seed, device=predictor.device).bags,
        1e-6,
        1 - 1e-6,
    )
    return float(np.mean(np.log(bags / (1 - bags))))


def healed(volume: Volume, region: NDArray[np.bool_], healthy: NDArray[np.int16], rng: np.random.Generator) -> Volume:
    """The scan with a region replaced by values of its own healthy lung."""
    array = volume.array.copy()
    array[region] = rng.choice(healthy, size=int(region.sum()))
    return replace(volume, array=array)


def largest(values: NDArray[np.floating], lungs: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """The tenth of the lung with the largest values; ties are broken at random."""
    inside = values[lungs] + rng.uniform(0, 1e-6, int(lungs.sum()))
    region = np.zeros(lungs.shape, dtype=bool)
    region[lungs] = inside >= np.quantile(inside, 1 - SHARE)
    return region


def measure(predictor: Predictor, row: ManifestRow, seed: int) -> Result:
    """Everything about one scan."""
    volume = read_scan(row.image)
    assert row.lobes is not None and row.lesions is not None
    lobes = read_lobe_mask(row.lobes, volume)
    lungs = (lobes > 0) & (lobes <= 5)
    lesions = (read_mask(row.lesions, volume) > 0) & lungs
    scan = prepare_volume(volume, predictor.config.prepare)
    _, found = explain_severity(predictor.network, scan, predictor.config, seed=seed, device=predictor.device)
    rng = np.random.default_rng([seed, 0xFA17])
    healthy = volume.array[lungs & ~lesions & (volume.array < HEALTHY_BELOW_HU)]
    before = log_odds(predictor, volume, seed)
    top = healed(volume, largest(found.heat.astype(float), lungs, rng), healthy, rng)
    patch_mm = predictor.config.bag.patch * scan.spacing_mm[1] / 4
    sigma = [patch_mm / 2 / step for step in volume.spacing_mm]
    random = []
    for _ in range(REPEATS):
        field = gaussian_filter(rng.normal(size=volume.shape).astype(np.float32), sigma, mode="wrap")
        random.append(before - log_odds(predictor, healed(volume, largest(field, lungs, rng), healthy, rng), seed))
    inside = np.where(lungs, found.heat, 0).astype(np.int8)
    return Result(
        row.scan_id,
        row.severity,
        before,
        before - log_odds(predictor, top, seed),
        float(np.mean(random)),
        tuple(random),
        share_on(found.heat, lungs),
        share_on(inside, lesions),
        float(lesions.sum() / lungs.sum()),
        float(lungs.mean()),
    )


def summary(results: list[Result]) -> dict[str, float | int]:
    """Means over the scans, and two one-sided Wilcoxon tests."""
    top = np.array([r.drop_top for r in results])
    random = np.array([r.drop_random for r in results])
    known = [r for r in results if r.heat_on_lesions is not None]
    on, chance = (np.array([getattr(r, name) for r in known]) for name in ("heat_on_lesions", "lesions_of_lungs"))
    inside = [r.heat_in_lungs for r in results if r.heat_in_lungs is not None]
    return {
        "scans": len(results),
        "log_odds": float(np.mean([r.log_odds for r in results])),
        "drop_top": float(top.mean()),
        "drop_random": float(random.mean()),
        "top_above_random": float(np.mean(top > random)),
        "p_deletion": float(wilcoxon(top, random, alternative="greater").pvalue),
        "heat_in_lungs": float(np.mean(inside)),
        "lungs_of_image": float(np.mean([r.lungs_of_image for r in results])),
        "heat_on_lesions": float(on.mean()),
        "lesions_of_lungs": float(chance.mean()),
        "times_chance": float(on.mean() / chance.mean()),
        "p_lesions": float(wilcoxon(on, chance, alternative="greater").pvalue),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--scans", type=int, default=20, help="so many scans with lesions, severe ones first")
    parser.add_argument("--fresh", action="store_true", help="the manifest is of another cohort: leave no scan out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    predictor = Predictor.load(options.run)
    split = options.run / "split.json"
    seen = set()
    if split.is_file() and not options.fresh:
        uses = json.loads(split.read_text(encoding="utf-8"))
        seen = {scan_id for use in ("train", "validation") for scan_id in uses[use]}
    rows = [r for r in read_manifest(options.manifest).rows if r.scan_id not in seen and r.lobes and r.lesions]
    rows = sorted(rows, key=lambda r: (-(r.severity or 0), r.scan_id))
    results: list[Result] = []
    for row in rows:
        try:
            results.append(measure(predictor, row, options.seed))
        except ValueError as error:  # no healthy lung to fill with
            print(f"{row.scan_id}: left out, {error}")
            continue
        print(f"{results[-1].scan_id} {results[-1].drop_top:+.2f} {results[-1].drop_random:+.2f}", flush=True)
        if len(results) == options.scans:
            break
    found = summary(results)
    for name, value in found.items():
        print(f"{name:<18} {value:.4g}")
    if options.json:
        text = json.dumps(
            {"method": predictor.identity.name, "summary": found, "scans": [asdict(r) for r in results]}, indent=1
        )
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
