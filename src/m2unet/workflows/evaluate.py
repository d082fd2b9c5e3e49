"""Evaluate a trained model on scans it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2unet.anatomy import CodeSystem
from m2unet.cohort.manifest import ManifestRow
from m2unet.files import write_json, write_text
from m2unet.workflows.progress import Progress
from m2unet.workflows.run_folder import versions
from m2unet.workflows.scoring import (
    AnyPredictor,
    Figures,
    ScanScore,
    figures,
    figures_table,
    score_scans,
    write_predictions,
)

EVALUATION_SCHEMA = "m2unet.evaluation/1"


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        scores: one a scan.
        figures: over all scans that could be scored.
    """

    scores: list[ScanScore]
    figures: Figures


def evaluate_scans(
    predictor: AnyPredictor,
    rows: Sequence[ManifestRow],
    out: Path,
    *,
    seed: int = 0,
    lobe_codes: CodeSystem = "m2unet",
    progress: Progress | None = None,
) -> Evaluation:
    """Score scans and write ``predictions.csv``, ``summary.json`` and ``results.md`` to ``out``.

    Args:
        predictor: the trained model.
        rows: scans with a severity, a lobe mask, or both.
        out: folder of the results; finished scans found there are not scored again.
        seed: seed of the random bags and of the bootstrap.
        lobe_codes: whose codes the true masks use, a key of :data:`m2unet.anatomy.CODE_MAPS`.
        progress: where to show progress.
    """
    scores = score_scans(predictor, rows, out / "scores", seed=seed, lobe_codes=lobe_codes, progress=progress)
    found = figures(scores, seed=seed)
    write_predictions(out / "predictions.csv", scores)
    write_json(out / "summary.json", summary(predictor, found, seed))
    write_text(out / "results.md", figures_table(found))
    return Evaluation(scores, found)


def summary(predictor: AnyPredictor, found: Figures, seed: int) -> dict[str, Any]:
    """The figures with what they rest on, JSON-ready."""
    return {
        "schema": EVALUATION_SCHEMA,
        "model": vars(predictor.identity),
        "seed": seed,
        "versions": versions(),
        "figures": found.to_dict(),
    }
