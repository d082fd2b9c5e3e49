"""Are unusual scans noticed? AUROC of usual against unusual scans, and the share beyond the limit, on phantoms.

    python benchmarks/unusual.py runs/demo fresh/manifest.csv --store runs/demo/store --scans 12 --json unusual.json

Usual are scans that the run was not trained or validated on, as they are; unusual are the first of them spoilt in many
ways, or replaced by another body. Two checks are compared: the vector before the classifier by its nearest training
scans (the first version), and Mahalanobis's distance on what the encoder saw. Both are fitted here to the training and
validation scans in the run's store, and both limits are set in the same way. Needs the true lobe masks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from sklearn.metrics import roc_auc_score

from m2unet.bags.sampling import BagSource
from m2unet.cohort.manifest import read_manifest
from m2unet.cohort.masks import read_lobe_mask
from m2unet.cohort.store import Store
from m2unet.ct.prepare import prepare_volume
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.errors import M2UNetError
from m2unet.inference.outlier import Reference, prediction_limit
from m2unet.inference.predictor import Predictor
from m2unet.inference.severity import SeverityEstimate, estimate_severity

Array = NDArray[np.float32]
Values = NDArray[np.floating]
USUAL = "as it is"
MIRRORED = "left and right swapped"
"""Reported, and not counted among the unusual: a lung looks much like the other."""

VERSIONS = {1: "embedding, nearest neighbours", 2: "signature, Mahalanobis"}


def spoilt(volume: Volume, lungs: NDArray[np.bool_], rng: np.random.Generator) -> Iterator[tuple[str, Values]]:
    """The scan spoilt in every way."""
    a = volume.array.astype(np.float32)
    half, third = a.shape[2] // 2, max(6, len(a) // 3)
    yield "values inverted", -1000 - a
    yield "all 1024 HU higher", a + 1024
    yield "all 300 HU higher", a + 300
    yield "all 100 HU higher", a + 100
    yield "values halved", a * 0.5
    yield "noise of 400 HU", a + rng.normal(0, 400, a.shape)
    yield "noise of 150 HU", a + rng.normal(0, 150, a.shape)
    yield "blurred by 4 pixels", gaussian_filter(a, (0, 4, 4))
    yield "head to feet", a[::-1]
    yield MIRRORED, a[:, :, ::-1]
    yield "left half missing", np.where(np.arange(a.shape[2]) < half, a, -1000)
    yield "lower third alone", a[:third]
    yield "upper third alone", a[-third:]
    yield "middle, enlarged twice", enlarged(a)
    yield "round field of 56 %", np.where(disc(a.shape[1:], 0.28), a, -1000)
    yield "lungs full of soft tissue", np.where(lungs, rng.normal(30, 20, a.shape), a)
    yield "a head", head(volume, rng)
    yield "a water phantom", water(volume, rng)


def disc(shape: tuple[int, ...], radius: float) -> NDArray[np.bool_]:
    """A disc in the middle, its radius a share of the height."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2 < (radius * shape[0]) ** 2


def enlarged(a: Array) -> Array:
    """The middle of every slice, twice as large."""
    _, height, width = a.shape
    part = a[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    return zoom(part, (1, height / part.shape[1], width / part.shape[2]), order=1)


def head(volume: Volume, rng: np.random.Generator) -> Array:
    """Skull, brain, ventricles and an air-filled sinus, where the chest was."""
    middle = tuple(size / 2 for size in volume.shape)

    def inside(at: tuple[float, ...], radii_mm: tuple[float, ...]) -> NDArray[np.bool_]:
        far = np.zeros(volume.shape, np.float32)
        for axis, size in enumerate(volume.shape):
            place = (np.arange(size) - at[axis]) * volume.spacing_mm[axis] / radii_mm[axis]
            far += (place**2).reshape([-1 if other == axis else 1 for other in range(3)]).astype(np.float32)
        return far < 1

    a = np.full(volume.shape, -1000, np.float32)
    for size, hu in ((1.0, 40), (0.97, 900), (0.9, 35), (0.2, 5)):
        a[inside(middle, (120 * size, 95 * size, 75 * size))] = hu
    front = (volume.shape[0] * 0.3, middle[1] - 60 / volume.spacing_mm[1], middle[2])
    a[inside(front, (15, 18, 22))] = -950
    return a + rng.normal(0, 12, a.shape).astype(np.float32)


def water(volume: Volume, rng: np.random.Generator) -> Array:
    """A cylinder of water with five rods."""
    a = np.full(volume.shape, -1000, np.float32)
    y, x = np.ogrid[: volume.shape[1], : volume.shape[2]]
    y, x = (y - volume.shape[1] / 2) * volume.spacing_mm[1], (x - volume.shape[2] / 2) * volume.spacing_mm[2]
    a[:, y**2 + x**2 < 150**2] = 0
    for number, hu in enumerate((-900, -500, 300, 1000, -100)):
        turn = 2 * np.pi * number / 5
        a[:, (y - 80 * np.sin(turn)) ** 2 + (x - 80 * np.cos(turn)) ** 2 < 25**2] = hu
    return a + rng.normal(0, 15, a.shape).astype(np.float32)


@dataclass(frozen=True)
class Looker:
    """Estimates of a run's model."""

    predictor: Predictor
    seed: int

    def look(self, scan: BagSource, bags: int | None = None) -> SeverityEstimate:
        """The estimate of one scan."""
        p = self.predictor
        return estimate_severity(p.network, scan, p.config, seed=self.seed, device=p.device, bags=bags)

    def spoilt(self, volume: Volume, array: Values) -> SeverityEstimate | None:
        """The estimate of other voxels in a volume's place; None where the quality check refuses them."""
        values = np.ascontiguousarray(np.clip(array, -1024, 3071).astype(np.int16))
        try:
            return self.look(prepare_volume(replace(volume, array=values), self.predictor.config.prepare))
        except M2UNetError:
            return None


def references(looker: Looker, store: Store, split: dict[str, list[str]]) -> dict[int, Reference]:
    """Both checks, fitted as after training: a bag of each training scan, all bags of validation scans."""
    known = [looker.look(store.open(scan_id), bags=1) for scan_id in split["train"]]
    held = [looker.look(store.open(scan_id)) for scan_id in split["validation"]]
    quantile = looker.predictor.config.confidence.usual_quantile
    found = {}
    for version in VERSIONS:
        blank = Reference(np.zeros((1, 1), np.float32), 0.0, (), version)
        vectors = np.array([blank.vector(each) for each in known], dtype=np.float32)
        reference = replace(blank, vectors=vectors)
        usual = np.array([reference.distance(reference.vector(each)) for each in held])
        found[version] = replace(reference, limit=prediction_limit(usual, quantile), usual=tuple(np.sort(usual)))
    return found


def table(found: dict[str, list[SeverityEstimate]], reference: Reference) -> dict[str, dict[str, float]]:
    """AUROC against the usual and the share beyond the limit, by kind."""
    far = {kind: np.array([reference.distance(reference.vector(e)) for e in each]) for kind, each in found.items()}
    usual = far.pop(USUAL)
    kinds = {kind: values for kind, values in far.items() if len(values)}
    kinds["all unusual"] = np.concatenate([values for kind, values in kinds.items() if kind != MIRRORED])
    rows = {USUAL: {"scans": len(usual), "beyond": float(np.mean(usual > reference.limit))}}
    for kind, values in kinds.items():
        truth = [0] * len(usual) + [1] * len(values)
        area = float(roc_auc_score(truth, np.concatenate([usual, values])))
        rows[kind] = {"scans": len(values), "auroc": area, "beyond": float(np.mean(values > reference.limit))}
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--store", type=Path, required=True, help="prepared scans the run was trained on")
    parser.add_argument("--usual", type=int, default=60, help="so many scans as they are")
    parser.add_argument("--scans", type=int, default=12, help="so many of them are spoilt")
    parser.add_argument("--fresh", action="store_true", help="the manifest is of another cohort: leave no scan out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    looker = Looker(Predictor.load(options.run), options.seed)
    split = json.loads((options.run / "split.json").read_text(encoding="utf-8"))
    checks = references(looker, Store(options.store), split)
    seen = set() if options.fresh else {*split["train"], *split["validation"]}
    rows = [row for row in read_manifest(options.manifest).rows if row.scan_id not in seen and row.lobes]
    found: dict[str, list[SeverityEstimate]] = {USUAL: []}
    for number, row in enumerate(rows[: options.usual]):
        volume = read_scan(row.image)
        found[USUAL].append(looker.look(prepare_volume(volume, looker.predictor.config.prepare)))
        if number >= options.scans:
            continue
        assert row.lobes is not None
        lobes = read_lobe_mask(row.lobes, volume)
        for kind, array in spoilt(volume, (lobes > 0) & (lobes <= 5), np.random.default_rng([options.seed, number])):
            estimate = looker.spoilt(volume, array)
            found.setdefault(kind, []).extend([] if estimate is None else [estimate])
    rows_of = {VERSIONS[version]: table(found, reference) for version, reference in checks.items()}
    for title, kinds in rows_of.items():
        print(title)
        for kind, line in kinds.items():
            print(f"  {kind:<28} {line['scans']:>4} {line.get('auroc', float('nan')):6.3f} {line['beyond']:6.2f}")
    if options.json:
        options.json.write_text(json.dumps(rows_of, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
