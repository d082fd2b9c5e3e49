"""The whole story on digital phantoms: cohort, preparation, training, evaluation, prediction, pictures."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from m2unet.cohort.folds import Split, make_folds
from m2unet.cohort.manifest import Manifest, ManifestRow, read_manifest
from m2unet.cohort.masks import read_lobe_mask
from m2unet.config import Config, load_config
from m2unet.evaluation.classification import roc_points
from m2unet.files import write_json
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor
from m2unet.phantom.cohort import CohortConfig, plan_cohort
from m2unet.phantom.writer import write_cohort
from m2unet.report.figures import PHANTOM_NOTE, Panel, RocCurve, save_comparison, save_learning_curves, save_roc
from m2unet.training.record import read_history
from m2unet.workflows.evaluate import Evaluation, evaluate_scans
from m2unet.workflows.model_card import write_model_card
from m2unet.workflows.predict import Case, CaseOutcome, predict_cases
from m2unet.workflows.progress import NoProgress, Progress
from m2unet.workflows.run_folder import RunFolder
from m2unet.workflows.scoring import judged
from m2unet.workflows.store import prepared_store
from m2unet.workflows.train import TrainJob, train_run

SCANS = 300
PATIENTS = 270
"""More patients teach more than more scans of one patient."""

FOLDS = 7
"""One of them, a seventh of the patients, is the unseen test set."""

FEW_FOLDS = 3
"""Folds of a smaller demo, whose severe patients would not suffice for more."""

SEVERE_SHARE = 0.4
UNMASKED_SHARE = 0.25
"""Share of training scans whose lobe masks are withheld: the network learns from weak labels, as in the paper."""

TRAINED_ON = "digital phantoms only; not for patients"


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        out: its folder.
        evaluation: scores and figures of the unseen patients.
        prediction: of one unseen scan.
        summary: what ``summary.json`` holds.
    """

    out: Path
    evaluation: Evaluation
    prediction: CaseOutcome
    summary: dict[str, Any]


def run_demo(
    out: Path, *, seed: int = 0, overrides: Sequence[str] = (), scans: int = SCANS, progress: Progress | None = None
) -> DemoResult:
    """Make a phantom cohort, train on it, evaluate on unseen patients, predict one unseen scan, draw pictures.

    Every stage skips what an earlier, interrupted call finished.

    Args:
        out: folder of everything made.
        seed: of the cohort, the split and the training.
        overrides: changes to the ``demo`` preset.
        scans: size of the cohort.
        progress: where to show progress.
    """
    started = time.monotonic()
    shown: Progress = progress or NoProgress()
    config = load_config("demo", [*overrides, f"seed={seed}"])
    cohort = _cohort(out / "cohort", scans, seed, shown)
    split = make_folds(cohort.rows, seed=seed, folds=FOLDS if scans >= SCANS // 2 else FEW_FOLDS)[0]
    run = _train(cohort, split, config, out, shown)
    predictor = Predictor.load(run.path)
    test = cohort.select(split.test)
    evaluation = evaluate_scans(predictor, test, out / "evaluation", seed=seed, run=run.path, progress=shown)
    write_model_card(run.path, cohort.rows, out / "evaluation" / "summary.json")
    unseen = test[0]
    case = Case(unseen.scan_id, unseen.image)
    prediction = next(iter(predict_cases(predictor, [case], out / "prediction", progress=shown)))
    _pictures(out, predictor, test, evaluation, shown)
    summary = _summary(evaluation, time.monotonic() - started)
    write_json(run.summary, summary)
    return DemoResult(out, evaluation, prediction, summary)


def _cohort(folder: Path, scans: int, seed: int, progress: Progress) -> Manifest:
    config = CohortConfig(
        size="small",
        patients=max(2 * FOLDS, round(PATIENTS * scans / SCANS)),
        scans=scans,
        severe_fraction=SEVERE_SHARE,
        lobe_masks="all",
    )
    with progress.stage("making phantoms") as step:
        manifest = write_cohort(plan_cohort(config, seed), folder, workers=os.cpu_count() or 1, progress=step)
    return read_manifest(manifest)


def _train(cohort: Manifest, split: Split, config: Config, out: Path, progress: Progress) -> RunFolder:
    train = _withhold_masks(cohort.select(split.train), config.seed)
    seen = Manifest(cohort.path, (*train, *cohort.select(split.validation)))
    store = prepared_store(seen, out / "store", config, workers=os.cpu_count() or 1, progress=progress)
    return train_run(TrainJob(store, split, config, out, TRAINED_ON, resume=True), progress=progress)


def _withhold_masks(rows: Sequence[ManifestRow], seed: int) -> tuple[ManifestRow, ...]:
    hidden = set(np.random.default_rng([seed, 0x3A5C]).permutation(len(rows))[: round(UNMASKED_SHARE * len(rows))])
    return tuple(replace(row, lobes=None) if i in hidden else row for i, row in enumerate(rows))


def _pictures(
    out: Path, predictor: Predictor, test: Sequence[ManifestRow], evaluation: Evaluation, progress: Progress
) -> None:
    folder = out / "figures"
    chosen = _three(test, evaluation)
    with progress.stage("drawing") as step:
        save_learning_curves(folder / "learning_curves.png", read_history(out), footer=PHANTOM_NOTE)
        known = judged(evaluation.scores)
        curve = roc_points(known.severity, known.probability)
        auc = evaluation.figures.values().get("auc")
        if curve is not None and auc is not None:
            points = RocCurve(
                f"M²UNet, AUC {auc:.3f}", curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist()
            )
            save_roc(folder / "roc.png", [points], footer=f"{len(known.patients)} unseen scans. {PHANTOM_NOTE}")
        step(1, 2)
        rows = [_panels(predictor, row, evaluation) for row in chosen]
        title = "Lobes of three unseen phantoms (median slice): scan, predicted, true"
        save_comparison(folder / "lobes.png", rows, title=title, footer=PHANTOM_NOTE)
        step(2, 2)


def _three(test: Sequence[ManifestRow], evaluation: Evaluation) -> list[ManifestRow]:
    """The scans with the worst, the median and the best mean lobe Dice: no picking of the pretty ones."""
    scored = [s for s in evaluation.scores if s.overlap.get("dsc") is not None]
    order = sorted(scored, key=lambda s: s.overlap["dsc"] or 0.0)
    by_id = {row.scan_id: row for row in test}
    places = sorted({0, len(order) // 2, len(order) - 1}) if order else []
    return [by_id[order[place].scan_id] for place in places]


def _panels(predictor: Predictor, row: ManifestRow, evaluation: Evaluation) -> list[Panel]:
    prediction = predictor.predict(row.image, severity=False)
    volume = prediction.volume
    assert row.lobes is not None and prediction.lobes is not None
    lobes = postprocess_lobes(prediction.lobes, volume.voxel_ml).mask
    truth = read_lobe_mask(row.lobes, volume)
    area = (truth > 0).sum(axis=(1, 2))
    z = int(np.searchsorted(np.cumsum(area), area.sum() / 2))
    side = int(np.median(np.nonzero((truth > 0) & (truth <= 3))[2]))
    score = next(s for s in evaluation.scores if s.scan_id == row.scan_id)
    aspect = volume.spacing_mm[0] / volume.spacing_mm[1]
    flat, tall = (z, ...), (slice(None, None, -1), slice(None), side)
    name = f"{row.scan_id}, Dice {score.overlap['dsc']:.3f}"
    return [
        Panel(name, volume.array[flat], None),
        Panel("predicted", volume.array[flat], lobes[flat]),
        Panel("true", volume.array[flat], truth[flat]),
        Panel("predicted, sagittal right", volume.array[tall], lobes[tall], aspect),
        Panel("true, sagittal right", volume.array[tall], truth[tall], aspect),
    ]


def _summary(evaluation: Evaluation, seconds: float) -> dict[str, Any]:
    figures = evaluation.figures.values()
    return {
        "auc": figures.get("auc"),
        "mean_lobe_dice": figures.get("dsc"),
        "test_scans": evaluation.figures.scans,
        "test_patients": evaluation.figures.patients,
        "seconds": round(seconds, 1),
        "note": PHANTOM_NOTE,
    }
