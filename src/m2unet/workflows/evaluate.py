"""Evaluate a trained model on scans it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2unet.anatomy import CodeSystem
from m2unet.cohort.manifest import ManifestRow
from m2unet.files import require_writable, write_json, write_text
from m2unet.inference.confidence import Confidence
from m2unet.report.figures import save_confidence
from m2unet.workflows.appraisal import Appraisal, appraisal_table, appraise
from m2unet.workflows.leakage import KnownScan, check_test
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
        appraisal: calibration, net benefit, abstention, subgroups and leakage.
    """

    scores: list[ScanScore]
    figures: Figures
    appraisal: Appraisal


def evaluate_scans(
    predictor: AnyPredictor,
    rows: Sequence[ManifestRow],
    out: Path,
    *,
    seed: int = 0,
    lobe_codes: CodeSystem = "auto",
    run: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score scans and write ``predictions.csv``, ``summary.json``, ``results.md`` and ``confidence.png`` to ``out``.

    Args:
        predictor: the trained model.
        rows: scans with a severity, a lobe mask, or both.
        out: folder of the results; finished scans found there are not scored again.
        seed: of the random bags.
        lobe_codes: whose codes the true masks use, a key of :data:`m2unet.anatomy.CODE_MAPS`.
        run: the model's run folder, whose training scans these are compared with.
        progress: where to show progress.

    Raises:
        OutputError: the folder cannot be written.
        RunError: it holds an evaluation of another model or of other scans.
    """
    require_writable(out)
    scores = score_scans(predictor, rows, out / "scores", seed=seed, lobe_codes=lobe_codes, progress=progress)
    found = figures(scores, threshold=getattr(predictor, "decides_from", 0.5))
    tested = [KnownScan(score.scan_id, score.patient_id, score.content_sha256, "test") for score in scores]
    confidence = getattr(predictor, "confidence", None) or Confidence()
    appraisal = appraise(scores, confidence.operating_point, check_test(run, tested))
    write_predictions(out / "predictions.csv", scores)
    write_json(out / "summary.json", summary(predictor, found, seed) | appraisal_entries(appraisal))
    write_text(out / "results.md", figures_table(found) + "\n" + appraisal_table(appraisal))
    draw_confidence(out / "confidence.png", appraisal)
    return Evaluation(scores, found, appraisal)


def appraisal_entries(appraisal: Appraisal) -> dict[str, Any]:
    """What ``summary.json`` holds of an appraisal: whole, and the figures that folds are averaged over."""
    return {"appraisal": appraisal.to_dict(), "appraisal_figures": appraisal.flat()}


def draw_confidence(path: Path, appraisal: Appraisal) -> None:
    """Draw reliability and decision curve, if there is anything to draw."""
    if appraisal.calibrated is None:
        return
    point = appraisal.operating_point
    save_confidence(
        path,
        {"calibrated": appraisal.calibrated, "as the network gives it": appraisal.raw},
        appraisal.curve,
        threshold=None if point is None else point.threshold,
        footer=f"{appraisal.scans} scans.",
    )


def summary(predictor: AnyPredictor, found: Figures, seed: int) -> dict[str, Any]:
    """The figures with what they rest on, JSON-ready."""
    return {
        "schema": EVALUATION_SCHEMA,
        "model": vars(predictor.identity),
        "seed": seed,
        "versions": versions(),
        "figures": found.to_dict(),
    }
