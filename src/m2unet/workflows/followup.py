"""Follow patients over time: measure each dated scan, compare, and write numbers, plots and a page."""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from m2unet import __version__
from m2unet.cohort.masks import read_lobe_mask
from m2unet.ct.identity import identify_scan, scan_files, source_fingerprint
from m2unet.ct.read import read_scan
from m2unet.errors import M2UNetError, ManifestError
from m2unet.files import write_json, write_text
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor
from m2unet.quantify.followup import Followup, follow
from m2unet.quantify.inflation import aerated_hu
from m2unet.quantify.quantities import quantify
from m2unet.quantify.timeline import ErrorModel, PartFigures, TimePoint, time_point
from m2unet.report.followup_page import FollowupPictures, followup_csv, render_followup
from m2unet.report.followup_plot import save_followup_plot
from m2unet.report.montage import Scene, save_thumbnail
from m2unet.report.result import NOTICE, PHANTOM_WARNING
from m2unet.workflows.followup_scans import DatedScan, PatientScans
from m2unet.workflows.progress import NoProgress, Progress
from m2unet.workflows.run_folder import versions

logger = logging.getLogger(__name__)

SCHEMA = "m2unet.followup/1"
POINT_SCHEMA = "m2unet.time-point/1"
GIVEN, PREDICTED = "lobes given", "lobes predicted by the model"


@dataclass(frozen=True)
class FollowupOptions:
    """How scans are measured and compared.

    Attributes:
        predictor: the model, for severity and for lobes where none are given; None uses given lobes alone.
        predict_lobes: use the model's lobes even where some are given.
        error: the error of measurement.
        seed: of the random bags.
    """

    predictor: Predictor | None = None
    predict_lobes: bool = False
    error: ErrorModel = field(default_factory=ErrorModel)
    seed: int = 0


@dataclass(frozen=True)
class FollowupOutcome:
    """What became of a patient.

    Attributes:
        patient: whose scans.
        found: the comparison; None where fewer than two scans could be measured.
        failed: by scan, why it could not be measured.
    """

    patient: PatientScans
    found: Followup | None
    failed: dict[str, str]


def follow_patients(
    patients: Sequence[PatientScans], out: Path, options: FollowupOptions, *, progress: Progress | None = None
) -> Iterator[FollowupOutcome]:
    """Follow patients one after the other; a bad scan or patient never stops the others.

    ``out/PATIENT/`` gets ``followup.json``, ``followup.csv``, ``followup.html``, ``followup.png`` and for each scan a
    thumbnail and its figures, which a later call takes over where scan, lobes, model and seed are the same;
    ``out/followup.csv`` has a row a patient.

    Raises:
        ManifestError: a scan has no lobe mask and there is no model.
    """
    _check_lobes(patients, options)
    shown: Progress = progress or NoProgress()
    outcomes: list[FollowupOutcome] = []
    total = sum(len(patient.scans) for patient in patients)
    done = 0
    with shown.stage("measuring scans") as step:
        for patient in patients:
            outcome = _patient(patient, out / patient.name, options)
            outcomes.append(outcome)
            yield outcome
            done += len(patient.scans)
            step(done, total)
    write_text(out / "followup.csv", _summary(outcomes))


def _check_lobes(patients: Sequence[PatientScans], options: FollowupOptions) -> None:
    model = options.predictor
    if model is not None and "lobes" in model.network.tasks:
        return
    missing = [scan.name for patient in patients for scan in patient.scans if scan.lobes is None]
    if missing or options.predict_lobes:
        raise ManifestError(
            "Lobes are needed to follow a patient",
            [f"{name}: no lobe mask" for name in missing] or ["the model predicts no lobes"],
            mend="fill the manifest's column lobes, or give --model with a model that segments lobes",
        )


def _patient(patient: PatientScans, folder: Path, options: FollowupOptions) -> FollowupOutcome:
    points: list[TimePoint] = []
    failed: dict[str, str] = {}
    for scan in patient.scans:
        try:
            points.append(_kept_or_measured(scan, folder, options))
        except (M2UNetError, OSError, MemoryError) as error:
            logger.warning("%s could not be measured: %s", scan.name, error)
            failed[scan.name] = str(error)
    if len(points) < 2:
        return FollowupOutcome(patient, None, failed)
    found = follow(points, options.error)
    _write(patient, found, folder, options, failed)
    return FollowupOutcome(patient, found, failed)


def _write(
    patient: PatientScans, found: Followup, folder: Path, options: FollowupOptions, failed: dict[str, str]
) -> None:
    warnings = _warnings(options)
    save_followup_plot(folder / "followup.png", found, footer=" ".join([*warnings, "Research use only."]))
    write_text(folder / "followup.csv", followup_csv(found))
    thumbnails = {p.name: (folder / _thumbnail(p.name)).read_bytes() for p in found.points}
    pictures = FollowupPictures((folder / "followup.png").read_bytes(), thumbnails)
    page = render_followup(patient.name, found, pictures, warnings=warnings, failed=failed, version=__version__)
    write_text(folder / "followup.html", page)
    document = {
        "schema": SCHEMA,
        "notice": NOTICE,
        "warnings": warnings,
        "patient": patient.name,
        **found.to_dict(),
        "failed": failed,
        "trained_on": None if options.predictor is None else options.predictor.identity.trained_on,
        "versions": versions(),
    }
    write_json(folder / "followup.json", document)


def _warnings(options: FollowupOptions) -> list[str]:
    trained_on = options.predictor.identity.trained_on if options.predictor is not None else None
    return [PHANTOM_WARNING] if "phantom" in (trained_on or "").lower() else []


# --- one scan --------------------------------------------------------------------------------------------------------


def measure_scan(scan: DatedScan, options: FollowupOptions, thumbnail: Path | None = None) -> TimePoint:
    """Measure one dated scan.

    Args:
        scan: which.
        options: how; the model must segment lobes where the scan has none.
        thumbnail: where to draw a coronal slice, or None.

    Raises:
        M2UNetError: the scan or its mask cannot be used.
    """
    volume = read_scan(scan.path)
    given = scan.lobes is not None and not options.predict_lobes
    severity = lobes = None
    if options.predictor is not None:
        prediction = options.predictor.predict(volume, lobes=not given, seed=options.seed)
        if prediction.severity is not None:
            severity = (prediction.severity.probability, prediction.severity.spread)
        if prediction.lobes is not None:
            lobes = postprocess_lobes(prediction.lobes, volume.voxel_ml).mask
    if given and scan.lobes is not None:
        lobes = read_lobe_mask(scan.lobes, volume)
    if lobes is None:
        raise M2UNetError("There are no lobes to measure in", found=scan.name, mend="give a mask or a model")
    found = quantify(volume.array, lobes, volume.spacing_mm, voxel_ml=volume.voxel_ml)
    if thumbnail is not None:
        save_thumbnail(thumbnail, Scene(volume.array, lobes, found.opacity_mask, volume.spacing_mm), 300)
    return time_point(
        scan.name,
        scan.date,
        volume.spacing_mm[0],
        found,
        thickness_mm=scan.thickness_mm,
        aerated=aerated_hu(volume.array, lobes, found.opacity_mask),
        severity=severity,
        lobes_by=GIVEN if given else PREDICTED,
        warnings=[finding.code for finding in volume.findings if finding.level == "warning"],
    )


def _kept_or_measured(scan: DatedScan, folder: Path, options: FollowupOptions) -> TimePoint:
    path = folder / f"{scan.name}.json"
    key = _key(scan, options)
    thumbnail = folder / _thumbnail(scan.name)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["schema"] == POINT_SCHEMA and kept["key"] == key and thumbnail.is_file():
            return _point(kept["point"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    point = measure_scan(scan, options, thumbnail)
    write_json(path, {"schema": POINT_SCHEMA, "key": key, "point": {**asdict(point), "date": point.date.isoformat()}})
    return point


def _key(scan: DatedScan, options: FollowupOptions) -> str:
    """Changes whenever the figures could."""
    predictor, identity = options.predictor, identify_scan(scan.path)
    facts = [
        __version__,
        scan.date.isoformat(),
        scan.thickness_mm,
        identity.digest,
        identity.fingerprint,
        None if scan.lobes is None else source_fingerprint(scan_files(scan.lobes)),
        None if predictor is None else predictor.identity.weights_sha256,
        options.predict_lobes,
        options.seed,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _point(values: dict[str, Any]) -> TimePoint:
    parts = {name: PartFigures(**part) for name, part in values["parts"].items()}
    date = datetime.date.fromisoformat(values["date"])
    return TimePoint(**{**values, "parts": parts, "date": date, "warnings": tuple(values["warnings"])})


def _thumbnail(name: str) -> str:
    return f"{name}.png"


# --- many patients ---------------------------------------------------------------------------------------------------


def _summary(outcomes: Sequence[FollowupOutcome]) -> str:
    columns = ("patient", "scans", "first", "last", "days", "verdict", "change", "low", "high", "latest", "failed")
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for outcome in outcomes:
        row: dict[str, Any] = {"patient": outcome.patient.name, "scans": len(outcome.patient.scans)}
        row["failed"] = "; ".join(outcome.failed) or None
        if outcome.found is not None:
            overall = outcome.found.overall
            change = overall.parts["lungs"].opacity_percent
            row |= {"first": outcome.found.points[0].date, "last": outcome.found.points[-1].date}
            row |= {"days": overall.days, "verdict": overall.verdict, "latest": outcome.found.steps[-1].verdict}
            row |= {name: _rounded(getattr(change, name)) for name in ("change", "low", "high")}
        table.writerow({name: "" if row.get(name) is None else row[name] for name in columns})
    return text.getvalue()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
