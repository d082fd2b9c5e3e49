"""Score a predictor on scans with known truth: one row a scan, resumable, and the figures made of the rows."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from m2unet.anatomy import LOBES, CodeSystem
from m2unet.cohort.manifest import ManifestRow
from m2unet.cohort.masks import read_lobe_mask
from m2unet.errors import M2UNetError
from m2unet.evaluation.classification import METRIC_NAMES, classification_metrics, per_patient
from m2unet.evaluation.intervals import Interval, classification_intervals, mean_intervals
from m2unet.evaluation.segmentation import segmentation_metrics, surface_means, surface_metrics
from m2unet.files import write_json, write_text
from m2unet.handcrafted.predictor import HandcraftedPredictor
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor
from m2unet.inference.severity import SeverityEstimate
from m2unet.workflows.progress import NoProgress, Progress

logger = logging.getLogger(__name__)

AnyPredictor = Predictor | HandcraftedPredictor

SCORE_SCHEMA = "m2unet.scan-score/2"
OVERLAP_NAMES: tuple[str, ...] = (
    *("dsc", "sen", "ppv", *(f"dsc_{lobe.abbreviation}" for lobe in LOBES)),
    *("surface_dice", "hd95_mm"),
)
"""Figures of lobes in tables; a scan's row holds each lobe's surface figures as well."""

SURFACE_NAMES: tuple[str, ...] = tuple(
    f"{name}_{lobe.abbreviation}" for name in ("surface_dice", "hd95_mm") for lobe in LOBES
)


@dataclass(frozen=True)
class ScanScore:
    """What a model said of one scan, beside the truth. None where it cannot be had.

    Attributes:
        scan_id, patient_id, site: from the manifest.
        severity: true class, 1 severe.
        probability, spread: mean and standard deviation of the bags' probabilities of severe.
        overlap: ``dsc sen ppv dsc_RUL ... surface_dice hd95_mm surface_dice_RUL ...`` over the whole volume; empty
            without a true mask.
        error: why the scan could not be scored.
    """

    scan_id: str
    patient_id: str
    site: str | None = None
    severity: int | None = None
    probability: float | None = None
    spread: float | None = None
    overlap: dict[str, float | None] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Figures:
    """Figures over scans.

    Attributes:
        per_scan: severity and overlap figures with patient-clustered 95 % intervals.
        per_patient: severity figures, a patient's probability being the mean over the patient's scans.
        scans, patients: how many were scored.
        failed: scans that could not be.
    """

    per_scan: dict[str, Interval]
    per_patient: dict[str, float | None]
    scans: int
    patients: int
    failed: int

    def values(self) -> dict[str, float | None]:
        """The per-scan figures without their intervals."""
        return {name: interval.estimate for name, interval in self.per_scan.items()}

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


def score_scans(
    predictor: AnyPredictor,
    rows: Sequence[ManifestRow],
    folder: Path,
    *,
    seed: int = 0,
    lobe_codes: CodeSystem = "m2unet",
    progress: Progress | None = None,
    title: str = "evaluating",
) -> list[ScanScore]:
    """Predict and score every scan; one that fails is reported and does not stop the others.

    Each finished scan is kept in ``folder`` as JSON and not scored again by the same model and seed.

    Args:
        predictor: the model.
        rows: scans with a severity, a lobe mask, or both.
        folder: where finished scores are kept.
        seed: seed of the random bags.
        lobe_codes: whose codes the true masks use.
        progress: where to show progress.
        title: of the progress.
    """
    scores: list[ScanScore] = []
    shown: Progress = progress or NoProgress()
    with shown.stage(title) as step:
        for number, row in enumerate(rows, 1):
            scores.append(_kept_or_scored(predictor, row, folder, _Settings(seed, lobe_codes)))
            step(number, len(rows))
    return scores


@dataclass(frozen=True)
class _Settings:
    seed: int
    lobe_codes: CodeSystem


def _kept_or_scored(predictor: AnyPredictor, row: ManifestRow, folder: Path, settings: _Settings) -> ScanScore:
    path = folder / f"{row.scan_id}.json"
    key = {"schema": SCORE_SCHEMA, "weights_sha256": predictor.identity.weights_sha256, **asdict(settings)}
    if path.is_file():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if {name: kept.get(name) for name in key} == key and kept["score"]["error"] is None:
                return ScanScore(**kept["score"])
        except (ValueError, KeyError, TypeError):
            logger.warning("%s: the kept score is damaged and made again", row.scan_id)
    score = _score(predictor, row, settings)
    write_json(path, {**key, "score": asdict(score)})
    return score


def _score(predictor: AnyPredictor, row: ManifestRow, settings: _Settings) -> ScanScore:
    about = {"scan_id": row.scan_id, "patient_id": row.patient_id, "site": row.site, "severity": row.severity}
    try:
        estimate, overlap = _judge(predictor, row, settings)
    except M2UNetError as error:
        logger.warning("%s could not be scored: %s", row.scan_id, error)
        return ScanScore(**about, error=str(error))  # type: ignore[arg-type]
    return ScanScore(
        **about,  # type: ignore[arg-type]
        probability=None if estimate is None else estimate.probability,
        spread=None if estimate is None else estimate.spread,
        overlap=overlap,
    )


def _judge(
    predictor: AnyPredictor, row: ManifestRow, settings: _Settings
) -> tuple[SeverityEstimate | None, dict[str, float | None]]:
    """Severity, and the overlap of the lobes with the true mask; a handcrafted method finds no lobes to compare."""
    if isinstance(predictor, HandcraftedPredictor):
        return predictor.estimate_row(row, settings.lobe_codes), {}
    prediction = predictor.predict(row.image, lobes=row.lobes is not None, seed=settings.seed)
    if row.lobes is None or prediction.lobes is None:
        return prediction.severity, {}
    volume = prediction.volume
    truth = read_lobe_mask(row.lobes, volume, settings.lobe_codes)
    tidied = postprocess_lobes(prediction.lobes, volume.voxel_ml).mask  # what a user is given
    overlap = segmentation_metrics(truth, tidied).values()
    return prediction.severity, overlap | surface_means(surface_metrics(truth, tidied, volume.spacing_mm))


@dataclass(frozen=True)
class Judged:
    """The scans whose severity is both known and predicted.

    Attributes:
        severity: ``[n]``, 1 severe.
        probability: ``[n]``, predicted probability of severe.
        patients: ``[n]``, the patient of each.
    """

    severity: list[int]
    probability: list[float]
    patients: list[str]


def judged(scores: Sequence[ScanScore]) -> Judged:
    """Truth and prediction of the scans that have both."""
    pairs = [
        (s.severity, s.probability, s.patient_id)
        for s in scores
        if s.severity is not None and s.probability is not None
    ]
    return Judged([p[0] for p in pairs], [p[1] for p in pairs], [p[2] for p in pairs])


def figures(scores: Sequence[ScanScore], *, threshold: float = 0.5, seed: int = 0) -> Figures:
    """Figures over all scans that could be scored; undefined ones are None with a reason.

    Args:
        scores: one a scan.
        threshold: a scan is called severe from this probability on.
        seed: of the bootstrap.
    """
    per_scan: dict[str, Interval] = {}
    patients_figures: dict[str, float | None] = {}
    known = judged(scores)
    if known.patients:
        per_scan |= classification_intervals(
            known.severity, known.probability, known.patients, threshold=threshold, seed=seed
        )
        gathered = per_patient(known.patients, known.severity, known.probability)
        patients_figures = classification_metrics(gathered.severity, gathered.probability, threshold).values()
    masked = [s for s in scores if s.overlap]
    if masked:
        columns = {name: [s.overlap.get(name) for s in masked] for name in OVERLAP_NAMES}
        per_scan |= mean_intervals(columns, [s.patient_id for s in masked], seed=seed)
    done = [s for s in scores if s.error is None]
    return Figures(
        per_scan=per_scan,
        per_patient=patients_figures,
        scans=len(done),
        patients=len({s.patient_id for s in done}),
        failed=len(scores) - len(done),
    )


def write_predictions(path: Path, scores: Sequence[ScanScore]) -> None:
    """One CSV row a scan; empty cells where a value cannot be had."""
    columns = ["scan_id", "patient_id", "site", "severity", "probability", "spread"]
    columns += [*OVERLAP_NAMES, *SURFACE_NAMES, "error"]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for score in scores:
        row = {name: value for name, value in asdict(score).items() if name != "overlap"} | score.overlap
        table.writerow({name: "" if row.get(name) is None else row[name] for name in columns})
    write_text(path, text.getvalue())


def figures_table(found: Figures) -> str:
    """The figures as a Markdown table: estimate and patient-clustered 95 % interval, and the figure per patient."""
    lines = ["| figure | per scan [95 % interval] | per patient |", "| --- | ---: | ---: |"]
    for name in (*METRIC_NAMES, *OVERLAP_NAMES):
        if name in found.per_scan:
            patient = found.per_patient.get(name)
            lines.append(f"| {name} | {found.per_scan[name].cell()} | {'' if patient is None else f'{patient:.3f}'} |")
    lines.append(f"\n{found.scans} scans of {found.patients} patients; {found.failed} could not be scored.")
    return "\n".join(lines) + "\n"
