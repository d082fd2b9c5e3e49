"""Five-fold cross-validation: one run folder a fold, resumable, folds saved and reusable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from m2unet.cohort.folds import Split, load_folds, make_folds, save_folds
from m2unet.cohort.manifest import Manifest, ManifestRow
from m2unet.cohort.store import Store
from m2unet.config import Config
from m2unet.evaluation.summary import ResultsTable, Spread, summarise_folds
from m2unet.files import write_json, write_text
from m2unet.models.base import SEVERITY
from m2unet.models.methods import method
from m2unet.training.distributed import World
from m2unet.workflows.appraisal import Appraisal, appraisal_table, appraise
from m2unet.workflows.evaluate import draw_confidence, evaluate_scans
from m2unet.workflows.leakage import Leakage, refuse_other_images
from m2unet.workflows.methods import load_method, measurements_of, train_method
from m2unet.workflows.model_card import write_crossval_card, write_model_card
from m2unet.workflows.progress import Progress
from m2unet.workflows.run_folder import RunFolder, read_json, versions
from m2unet.workflows.scoring import kept_scores
from m2unet.workflows.train import TrainJob
from m2unet.workflows.usable import fold_label

CROSSVAL_SCHEMA = "m2unet.crossval/1"


@dataclass(frozen=True)
class CrossValidation:
    """A cross-validation of one configuration.

    Attributes:
        manifest: the cohort.
        store: its prepared scans.
        config: the configuration.
        out: gets ``folds.json``, ``fold0`` ... and the summary.
        by: whether patients (default) or scans are kept together.
        trained_on: what the scans are, in words.
        device: where to train and predict.
    """

    manifest: Manifest
    store: Store
    config: Config
    out: Path
    by: Literal["patient", "scan"] = "patient"
    trained_on: str = "the user's cohort"
    device: str = "cpu"

    def splits(self, count: int = 5) -> list[Split]:
        """The saved folds, or new ones, saved; each with scans to train on and to test by, as the method needs."""
        path = self.out / "folds.json"
        if path.is_file():
            return load_folds(path, self.manifest.rows, by=self.by)
        label = fold_label(self._tasks)
        splits = make_folds(self.manifest.rows, by=self.by, seed=self.config.seed, folds=count, label=label)
        save_folds(splits, path, by=self.by, seed=self.config.seed)
        return splits

    @property
    def _tasks(self) -> frozenset[str]:
        return method(self.config.model.name).tasks

    def tested(self, split: Split) -> tuple[ManifestRow, ...]:
        """The test scans that the method can say something of: for lobes alone, those with a mask to compare with."""
        rows = self.manifest.select(split.test)
        return rows if SEVERITY in self._tasks else tuple(row for row in rows if row.lobes is not None)

    def run_fold(self, fold: int, split: Split, progress: Progress | None = None) -> dict[str, float | None]:
        """Train and test one fold, or read what a finished one gave."""
        run = RunFolder(self.out / f"fold{fold}")
        refuse_other_images(self.store, split, run.path)
        if not run.summary.is_file():
            job = TrainJob(self.store, split, self.config, run.path, self.trained_on, resume=True, by=self.by)
            train_method(job, world=World(device=torch.device(self.device)), progress=progress)
            predictor = load_method(run.path, device=self.device, cache=measurements_of(self.store))
            evaluate_scans(
                predictor,
                self.tested(split),
                run.path,
                seed=self.config.seed,
                lobe_codes=self.store.lobe_codes,
                run=run.path,
                progress=progress,
            )
            write_model_card(run.path, self.manifest.rows, run.summary)
        return fold_figures(read_json(run.summary))

    def run(
        self, *, only: Sequence[int] | None = None, folds: int = 5, progress: Progress | None = None
    ) -> dict[str, Spread]:
        """Run all folds, or some, and write ``summary.json`` and ``results.md`` over those run.

        Args:
            only: fold numbers, from 0; all if None.
            folds: how many folds to make, if none are saved yet.
            progress: where to show progress.
        """
        splits = self.splits(folds)
        numbers = range(len(splits)) if only is None else only
        results = {number: self.run_fold(number, splits[number], progress) for number in numbers}
        found = summarise_folds(list(results.values()))
        pooled = self._pooled(sorted(results))
        table = ResultsTable(tuple(found), {self.config.model.name: found})
        write_json(
            self.out / "summary.json",
            {
                "schema": CROSSVAL_SCHEMA,
                "folds": sorted(results),
                "by": self.by,
                "versions": versions(),
                "figures": {name: spread.to_dict() for name, spread in found.items()},
                "appraisal": pooled.to_dict(),
            },
        )
        write_text(self.out / "results.md", table.to_markdown() + "\n" + appraisal_table(pooled))
        draw_confidence(self.out / "confidence.png", pooled)
        write_crossval_card(self.out, [self.out / f"fold{number}" for number in sorted(results)], self.manifest.rows)
        return found

    def _pooled(self, folds: Sequence[int]) -> Appraisal:
        """The appraisal over the test scans of all folds, each judged by its own fold's model."""
        runs = [RunFolder(self.out / f"fold{fold}") for fold in folds]
        scores = [score for run in runs for score in kept_scores(run.path / "scores")]
        checks = [read_json(run.summary).get("appraisal", {}).get("leakage", {}) for run in runs]
        leakage = Leakage(
            checked=all(check.get("checked") for check in checks),
            same_patient=tuple(name for check in checks for name in check.get("same_patient", ())),
            same_content=tuple((one, other) for check in checks for one, other in check.get("same_content", ())),
            reason=next((check["reason"] for check in checks if check.get("reason")), None),
        )
        return appraise(scores, None, leakage)


def fold_figures(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of a fold's ``summary.json`` that are averaged over folds."""
    figures = {name: interval["estimate"] for name, interval in summary["figures"]["per_scan"].items()}
    return figures | summary.get("appraisal_figures", {})
