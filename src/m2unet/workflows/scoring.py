"""Score a predictor on scans with known truth: one row a scan, resumable, and the figures made of the rows."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from m2unet.anatomy import LOBES, CodeSystem
from m2unet.cohort.manifest import ManifestRow
from m2unet.cohort.masks import CHECKS, log_findings, read_lobes
from m2unet.ct.identity import ScanIdentity, all_files, identify_scan, source_fingerprint
from m2unet.errors import M2UNetError, RunError
from m2unet.evaluation.classification import METRIC_NAMES, classification_metrics, per_patient
from m2unet.evaluation.intervals import Interval, classification_intervals, mean_intervals
from m2unet.evaluation.segmentation import segmentation_metrics, surface_means, surface_metrics
from m2unet.files import write_json, write_text
from m2unet.handcrafted.predictor import HandcraftedPredictor
from m2unet.inference.confidence import Judgement
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Prediction, Predictor
from m2unet.inference.severity import SeverityEstimate
from m2unet.workflows.case_folder import read_json_file
from m2unet.workflows.case_names import unexpected, without_names
from m2unet.workflows.progress import NoProgress, Progress

logger = logging.getLogger(__name__)

AnyPredictor = Predictor | HandcraftedPredictor

SCORE_SCHEMA = "m2unet.scan-score/4"
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
        probability, spread: mean and standard deviation of the bags' probabilities of severe, calibrated if the model
            is.
        overlap: ``dsc sen ppv dsc_RUL ... surface_dice hd95_mm surface_dice_RUL ...`` over the whole volume; empty
            without a true mask.
        error: why the scan could not be scored, or not against its mask.
        raw: mean probability as the network gives it.
        low, high: 95 % interval of the mean over the bags, calibrated.
        threshold, answer, abstained, reasons, distance: see :class:`m2unet.inference.confidence.Judgement`.
        scanner: manufacturer and model from the DICOM header.
        slice_mm: distance between slices.
        sex, age: from the manifest.
        content_sha256: of the prepared voxels, to be compared with those of training scans.
        extra: columns of the user's own, from the manifest.
    """

    scan_id: str
    patient_id: str
    site: str | None = None
    severity: int | None = None
    probability: float | None = None
    spread: float | None = None
    overlap: dict[str, float | None] = field(default_factory=dict)
    error: str | None = None
    raw: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    answer: str | None = None
    abstained: bool = False
    reasons: tuple[str, ...] = ()
    distance: float | None = None
    scanner: str | None = None
    slice_mm: float | None = None
    sex: str | None = None
    age: float | None = None
    content_sha256: str | None = None
    extra: dict[str, str] = field(default_factory=dict)


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
    lobe_codes: CodeSystem = "auto",
    progress: Progress | None = None,
    title: str = "evaluating",
) -> list[ScanScore]:
    """Predict and score every scan; one that fails is reported and does not stop the others.

    Each finished scan is kept in ``folder`` as JSON and not scored again by the same model and seed while its files
    are the same. With a mask that is refused, the severity is scored and the reason told.

    Args:
        predictor: the model.
        rows: scans with a severity, a lobe mask, or both.
        folder: where finished scores are kept.
        seed: seed of the random bags.
        lobe_codes: whose codes the true masks use.
        progress: where to show progress.
        title: of the progress.

    Raises:
        RunError: the folder holds scores of another model or other scans.
    """
    refuse_other_scores(predictor, rows, folder)
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
    path, identity = folder / f"{row.scan_id}.json", identify_scan(row.image)
    key = {"schema": SCORE_SCHEMA, "weights_sha256": predictor.identity.weights_sha256, **asdict(settings)}
    key |= {"scan_digest": identity.digest, "mask": _mask_fingerprint(row), "mask_checks": CHECKS}
    if path.is_file():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if {name: kept.get(name) for name in key} == key and kept["score"]["error"] is None:
                score = ScanScore(**{**kept["score"], "reasons": tuple(kept["score"]["reasons"])})
                return replace(score, **_from_manifest(row))  # which may have been corrected since
        except (ValueError, KeyError, TypeError):
            logger.warning("%s: the kept score is damaged and made again", row.scan_id)
    score = _score(predictor, row, settings, identity)
    write_json(path, {**key, "score": asdict(score)})
    return score


def _from_manifest(row: ManifestRow) -> dict[str, Any]:
    """What a score has from the manifest alone."""
    names = ("scan_id", "patient_id", "site", "severity", "sex", "age")
    return {name: getattr(row, name) for name in names} | {"extra": dict(row.extra)}


def _mask_fingerprint(row: ManifestRow) -> str | None:
    if row.lobes is None:
        return None
    try:
        return source_fingerprint(all_files(row.lobes))
    except OSError:
        return None


def refuse_other_scores(predictor: AnyPredictor, rows: Sequence[ManifestRow], folder: Path) -> None:
    """Refuse a folder that holds scores of another model, or of scans that are not these.

    Raises:
        RunError: saying which.
    """
    images = {row.scan_id: row.image for row in rows}
    for path in sorted(folder.glob("*.json")):
        kept = read_json_file(path) or {}
        score = kept.get("score")
        if kept.get("schema") != SCORE_SCHEMA or not isinstance(score, dict) or score.get("error") is not None:
            continue
        other = None
        if kept.get("weights_sha256") != predictor.identity.weights_sha256:
            other = "another model"
        elif path.stem not in images:
            other = f"a scan that is not asked for, {path.stem}"
        elif kept.get("scan_digest") not in (None, identify_scan(images[path.stem]).digest):
            other = f"another scan of the name {path.stem}"
        if other is not None:
            raise RunError(
                "The folder holds an evaluation of its own, which would be replaced",
                found=f"scores of {other}",
                mend="choose another --out, or delete the folder if nobody needs it",
            )


def kept_scores(folder: Path) -> list[ScanScore]:
    """The scores that an evaluation left in its ``scores`` folder, by name of the scan."""
    found = []
    for path in sorted(folder.glob("*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))["score"]
        found.append(ScanScore(**{**kept, "reasons": tuple(kept["reasons"])}))
    return found


def _score(predictor: AnyPredictor, row: ManifestRow, settings: _Settings, identity: ScanIdentity) -> ScanScore:
    score = ScanScore(**_from_manifest(row))
    try:
        if isinstance(predictor, HandcraftedPredictor):  # it finds no lobes to compare
            found = predictor.assess_row(row, settings.lobe_codes)
            score = replace(_with_estimate(score, found.estimate), slice_mm=found.measured.slice_mm)
            return _with_judgement(score, found.judgement)
        prediction = predictor.predict(
            row.image, lobes=row.lobes is not None, seed=settings.seed, hash_content=True, accept=row.accept
        )
        score = _with_severity(score, prediction)
        return replace(score, overlap=_overlap(prediction, row, settings.lobe_codes))
    except M2UNetError as error:  # with a bad mask the severity stands
        message = without_names(str(error), _paths(row), identity.patient)
        logger.warning("%s could not be scored: %s", row.scan_id, message)
        return replace(score, error=message)
    except Exception as error:  # one scan's surprise must not lose the others
        return replace(score, error=unexpected(row.scan_id, error, _paths(row), identity.patient))


def _paths(row: ManifestRow) -> list[Path]:
    return [row.image, *([row.lobes] if row.lobes else [])]


def _overlap(prediction: Prediction, row: ManifestRow, codes: CodeSystem) -> dict[str, float | None]:
    """Overlap of the lobes a user is given with the true mask; empty without one of them."""
    if row.lobes is None or prediction.lobes is None:
        return {}
    volume = prediction.volume
    mask = read_lobes(row.lobes, volume, codes, accept=row.accept)
    log_findings(row.scan_id, mask)
    truth = mask.array
    tidied = postprocess_lobes(prediction.lobes, volume.voxel_ml).mask
    overlap = segmentation_metrics(truth, tidied).values()
    return overlap | surface_means(surface_metrics(truth, tidied, volume.spacing_mm, direction=volume.direction))


def _with_estimate(score: ScanScore, estimate: SeverityEstimate | None) -> ScanScore:
    if estimate is None:
        return score
    return replace(score, probability=estimate.probability, spread=estimate.spread, raw=estimate.probability)


def _with_severity(score: ScanScore, prediction: Prediction) -> ScanScore:
    """The score with what the prediction says of severity, and of the scan."""
    header = prediction.volume.source.header
    scanner = " ".join(str(header[name]) for name in ("manufacturer", "model") if header.get(name)) or None
    score = replace(
        _with_estimate(score, prediction.severity),
        scanner=scanner,
        slice_mm=prediction.volume.spacing_mm[0],
        content_sha256=prediction.content_sha256,
    )
    return score if prediction.judgement is None else _with_judgement(score, prediction.judgement)


def _with_judgement(score: ScanScore, judgement: Judgement) -> ScanScore:
    return replace(
        score,
        probability=judgement.probability,
        spread=judgement.spread,
        low=judgement.low,
        high=judgement.high,
        threshold=judgement.threshold,
        answer=judgement.said,
        abstained=judgement.abstain,
        reasons=judgement.reasons,
        distance=judgement.distance,
    )


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


def figures(scores: Sequence[ScanScore], *, threshold: float = 0.5) -> Figures:
    """Figures over all scans that could be scored; undefined ones are None with a reason.

    Args:
        scores: one a scan.
        threshold: a scan is called severe from this probability on.
    """
    per_scan: dict[str, Interval] = {}
    patients_figures: dict[str, float | None] = {}
    known = judged(scores)
    if known.patients:
        per_scan |= classification_intervals(known.severity, known.probability, known.patients, threshold=threshold)
        gathered = per_patient(known.patients, known.severity, known.probability)
        patients_figures = classification_metrics(gathered.severity, gathered.probability, threshold).values()
    masked = [s for s in scores if s.overlap]
    if masked:
        columns = {name: [s.overlap.get(name) for s in masked] for name in OVERLAP_NAMES}
        limits = {name: (0.0, math.inf) if name == "hd95_mm" else (0.0, 1.0) for name in columns}
        per_scan |= mean_intervals(columns, [s.patient_id for s in masked], limits=limits)
    done = [s for s in scores if s.error is None]
    return Figures(
        per_scan=per_scan,
        per_patient=patients_figures,
        scans=len(done),
        patients=len({s.patient_id for s in done}),
        failed=len(scores) - len(done),
    )


def write_predictions(path: Path, scores: Sequence[ScanScore]) -> None:
    """One CSV row per scan, the columns of the user's own last; empty cells where a value is not available.

    A column of the user's own with the name of one of these becomes ``manifest_NAME``.
    """
    columns = ["scan_id", "patient_id", "site", "severity", "probability", "spread"]
    columns += ["raw", "low", "high", "threshold", "answer", "reasons", "distance", "scanner", "slice_mm", "sex", "age"]
    columns += [*OVERLAP_NAMES, *SURFACE_NAMES, "error"]
    own: dict[str, str] = {}
    for name in dict.fromkeys(name for score in scores for name in score.extra):
        own[name] = name
        while own[name] in (*columns, *list(own.values())[:-1]):
            own[name] = f"manifest_{own[name]}"
    text = io.StringIO()
    table = csv.DictWriter(text, [*columns, *own.values()], lineterminator="\n")
    table.writeheader()
    for score in scores:
        row = {name: value for name, value in asdict(score).items() if name != "overlap"} | score.overlap
        row["reasons"] = "; ".join(score.reasons) or None
        cells = {name: "" if row.get(name) is None else row[name] for name in columns}
        table.writerow(cells | {written: score.extra.get(name, "") for name, written in own.items()})
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
