"""Dice on unseen phantoms against the number of corrected scans: those with most doubt first, or in random order.

    python benchmarks/annotate.py --table annotate.json --out docs/images/annotate.png

A tiny network learns from three scans with true lobe masks. In rounds, more scans of the pool are "corrected" (given
their true masks): those of which the network trained so far is least sure, or random ones; the network is trained anew
each time, always for the same number of steps. Self-training adds, to the first
three or to the ranked scans, the pool's other scans with the confident pixels of their proposals only. Every seed is
another cohort, split and initialisation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from m2unet.cohort.folds import Split
from m2unet.cohort.manifest import Manifest, ManifestRow, read_manifest
from m2unet.cohort.masks import read_lobe_mask
from m2unet.config import Config, load_config
from m2unet.ct.read import read_scan
from m2unet.ct.write import write_mask
from m2unet.evaluation.segmentation import segmentation_metrics
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor
from m2unet.inference.uncertainty import Proposal, propose_lobes
from m2unet.phantom.cohort import CohortConfig, plan_cohort
from m2unet.phantom.writer import write_cohort
from m2unet.workflows.store import prepared_store
from m2unet.workflows.train import TrainJob, train_run

POOL, TEST, START = 16, 8, 3
ROUNDS = (5, 8)
STEPS = 180
BAGS_PER_STEP = 4
TINY = (
    "model.name=seg_only",
    "model.width=16",
    "model.deep_width=32",
    "prepare.inplane_mm=6",
    "prepare.min_box=48",
    "bag.size=8",
    "bag.patch=48",
    "train.lr=0.006",
    "train.precision=bf16",
    f"train.bags_per_step={BAGS_PER_STEP}",
    "train.validate_every=1000",
)


@dataclass(frozen=True)
class Study:
    """One seed: its scans, and where its files go."""

    pool: tuple[ManifestRow, ...]
    test: tuple[ManifestRow, ...]
    folder: Path
    seed: int

    def train(self, name: str, rows: Sequence[ManifestRow]) -> Predictor:
        """Train for the usual number of steps on these scans."""
        epochs = max(1, round(STEPS * BAGS_PER_STEP / max(len(rows), BAGS_PER_STEP)))
        config: Config = load_config("demo", [*TINY, f"seed={self.seed}", f"train.epochs={epochs}"])
        cohort = Manifest(self.folder / "manifest.csv", tuple(rows))
        store = prepared_store(cohort, self.folder / f"store-{name}", config)
        split = Split(tuple(row.scan_id for row in rows), (), ())
        run = train_run(TrainJob(store, split, config, self.folder / name, "phantoms"))
        return Predictor.load(run.path)

    def dice(self, predictor: Predictor) -> float:
        """Mean lobe Dice over the unseen patients' scans, whole volumes, tidied."""
        found = []
        for row in self.test:
            volume = read_scan(row.image)
            assert row.lobes is not None
            prediction = predictor.predict(volume, severity=False)
            assert prediction.lobes is not None
            tidied = postprocess_lobes(prediction.lobes, volume.voxel_ml).mask
            found.append(segmentation_metrics(read_lobe_mask(row.lobes, volume), tidied).dsc or 0.0)
        return float(np.mean(found))

    def proposals(self, predictor: Predictor, rows: Sequence[ManifestRow]) -> dict[str, Proposal]:
        """Proposals for scans without a mask, by scan."""
        return {row.scan_id: propose_lobes(predictor, read_scan(row.image)) for row in rows}

    def self_trained(self, name: str, rows: Sequence[ManifestRow], predictor: Predictor) -> float:
        """Train again, the other scans of the pool joining with confident pixels."""
        others = [row for row in self.pool if row not in rows]
        joined = []
        for row in others:
            volume = read_scan(row.image)
            path = self.folder / f"confident-{name}" / f"{row.scan_id}.nii.gz"
            write_mask(volume, propose_lobes(predictor, volume).confident, path)
            joined.append(replace(row, lobes=path))
        return self.dice(self.train(f"self-{name}", [*rows, *joined]))


def run_seed(seed: int, folder: Path) -> dict[str, object]:
    """All trainings of one seed."""
    config = CohortConfig(size="small", scans=POOL + TEST, patients=POOL + TEST, severe_fraction=0.4, lobe_masks="all")
    cohort = read_manifest(write_cohort(plan_cohort(config, 500 + seed), folder / "cohort", workers=1))
    study = Study(cohort.rows[:POOL], cohort.rows[POOL:], folder, seed)
    first = study.train("start", study.pool[:START])
    found: dict[str, object] = {"start": study.dice(first), "self": {}}
    found["doubt_against_dice"] = _correlation(study, first)
    curves: dict[str, dict[int, float]] = {}
    for order in ("ranked", "random"):
        chosen, predictor = list(study.pool[:START]), first
        curve = curves.setdefault(order, {})
        rng = np.random.default_rng([seed, len(curves)])
        for number in ROUNDS:
            left = [row for row in study.pool if row not in chosen]
            if order == "ranked":
                doubt = {name: proposal.doubt for name, proposal in study.proposals(predictor, left).items()}
                left.sort(key=lambda row: -doubt[row.scan_id])
            else:
                left = [left[i] for i in rng.permutation(len(left))]
            chosen += left[: number - len(chosen)]
            predictor = study.train(f"{order}-{number}", chosen)
            curve[number] = study.dice(predictor)
            print(f"seed {seed} {order} {number}: {curve[number]:.4f}", flush=True)
            if order == "ranked" and number == ROUNDS[0]:
                found["self"] = {
                    START: study.self_trained("start", study.pool[:START], first),
                    number: study.self_trained(f"{order}-{number}", chosen, predictor),
                }
                print(f"seed {seed} start {found['start']:.4f} self {found['self']}", flush=True)
    found["curves"] = curves
    found["all"] = study.dice(study.train("all", study.pool))
    print(f"seed {seed} all: {found['all']:.4f}", flush=True)
    return found


def _correlation(study: Study, predictor: Predictor) -> float:
    """Spearman correlation of doubt with true Dice over the scans left in the pool."""
    from scipy.stats import spearmanr

    doubt, dice = [], []
    for row in study.pool[START:]:
        volume = read_scan(row.image)
        assert row.lobes is not None
        proposal = propose_lobes(predictor, volume)
        doubt.append(proposal.doubt)
        dice.append(segmentation_metrics(read_lobe_mask(row.lobes, volume), proposal.lobes).dsc or 0.0)
    return float(spearmanr(doubt, dice).statistic)


def main() -> None:
    """Run all seeds, write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--table", type=Path, required=True, nargs="+", help="the first is written; all are drawn")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = options.table[0]
    results = json.loads(table.read_text()) if table.is_file() else {}
    for seed in options.seeds:
        if str(seed) in results:
            continue
        started = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            results[str(seed)] = {**run_seed(seed, Path(folder)), "seconds": round(time.process_time() - started)}
        table.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.out:
        merged = {}
        for path in options.table:
            merged |= json.loads(path.read_text())
        plot(merged, options.out)


def plot(results: dict[str, dict], path: Path) -> None:  # type: ignore[type-arg]
    """Mean over seeds with the seeds' spread."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    counts = [START, *ROUNDS, POOL]
    lines = {"most doubt first": ("ranked",), "random order": ("random",)}
    for (label, orders), colour in zip(lines.items(), ("#0072b2", "#d55e00"), strict=True):
        table = np.array(
            [
                [one["start"], *(np.mean([one["curves"][o][str(n)] for o in orders]) for n in ROUNDS), one["all"]]
                for one in results.values()
            ]
        )
        for row in table:
            axis.plot(counts, row, color=colour, alpha=0.25, linewidth=1)
        axis.plot(counts, table.mean(0), color=colour, marker="o", linewidth=2, label=label)
    for number in (START, ROUNDS[0]):
        values = [one["self"][str(number)] for one in results.values()]
        label = "self-training on confident pixels added" if number == START else None
        axis.scatter([number] * len(values), values, color="#009e73", marker="x", s=26, alpha=0.5)
        axis.scatter([number], [np.mean(values)], color="#009e73", marker="D", label=label, zorder=3)
    axis.set(xlabel="scans with a corrected mask", ylabel=f"mean lobe Dice, {TEST} unseen phantoms")
    axis.set_title(f"Mean of {len(results)} seeds (thin: each seed)", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right", fontsize=9)
    figure.text(0.01, -0.02, "Digital phantoms: engineering evidence, never clinical.", fontsize=7, color="0.35")
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
