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
from m2unet.anatomy import CodeSystem
from m2unet.cohort.masks import CHECKS, read_lobes
from m2unet.ct.identity import ScanIdentity, all_files, identify_scan, source_fingerprint
from m2unet.ct.patient import PatientWords
from m2unet.ct.read import read_scan
from m2unet.errors import ConfigError, M2UNetError, ManifestError
from m2unet.files import require_writable, write_json, write_text
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor
from m2unet.quantify.followup import Followup, follow
from m2unet.quantify.inflation import aerated_hu
from m2unet.quantify.quantities import quantify
from m2unet.quantify.timeline import ErrorModel, PartFigures, TimePoint, time_point
from m2unet.report.followup_page import FollowupPictures, followup_csv, render_followup
from m2unet.report.followup_plot import save_followup_plot
from m2unet.report.montage import Scene, save_thumbnail
from m2unet.report.result import NOTICE
from m2unet.workflows.case_folder import ERROR_FILE, read_json_file, remove_files
from m2unet.workflows.case_names import unexpected, without_names
from m2unet.workflows.followup_scans import DatedScan, PatientScans
from m2unet.workflows.progress import NoProgress, Progress
from m2unet.workflows.run_folder import versions
from m2unet.workflows.severity import absence_reason, model_warnings

logger = logging.getLogger(__name__)

SCHEMA = "m2unet.followup/1"
POINT_SCHEMA = "m2unet.time-point/2"
NO_MODEL = "no model was given that classifies severity"
ERROR_SCHEMA = "m2unet.followup-error/1"
DOCUMENT_FILE, SUMMARY_FILE = "followup.json", "followup.csv"
_FILES = (DOCUMENT_FILE, "followup.csv", "followup.html", "followup.png", ERROR_FILE)
_COLUMNS = ("patient", "scans", "first", "last", "days", "verdict", "change", "low", "high", "latest", "failed")
GIVEN, PREDICTED = "lobes given", "lobes predicted by the model"


@dataclass(frozen=True)
class FollowupOptions:
    """How scans are measured and compared.

    Attributes:
        predictor: the model, for severity and for lobes where none are given; None uses given lobes alone.
        predict_lobes: use the model's lobes even where some are given.
        error: the error of measurement.
        seed: of the random bags.
        lobe_codes: whose codes given lobe masks use.
    """

    predictor: Predictor | None = None
    predict_lobes: bool = False
    error: ErrorModel = field(default_factory=ErrorModel)
    seed: int = 0
    lobe_codes: CodeSystem = "auto"


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
    ``out/followup.csv`` has a row for each patient of the folder, and is written anew after each. A folder that holds
    the follow-up of other scans is not written into.

    Raises:
        OutputError: the folder cannot be written, before the first scan is read.
        ManifestError: a scan has no lobe mask and there is no model.
    """
    _check_lobes(patients, options)
    shown: Progress = progress or NoProgress()
    require_writable(out)
    _check_summary(out)
    total = sum(len(patient.scans) for patient in patients)
    done = 0
    with shown.stage("measuring scans") as step:
        for patient in patients:
            outcome = _patient(patient, out / patient.name, options)
            _write_summary(out)
            yield outcome
            done += len(patient.scans)
            step(done, total)


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
    identities = {scan.name: identify_scan(scan.path) for scan in patient.scans}
    held = _other_scans(folder, patient, identities)
    if held is not None:
        return FollowupOutcome(patient, None, {scan.name: held for scan in patient.scans})
    for scan in patient.scans:
        paths, words = [scan.path, *([scan.lobes] if scan.lobes else [])], identities[scan.name].patient
        try:
            points.append(_kept_or_measured(scan, folder, options))
        except (M2UNetError, OSError) as error:
            text = (error.strerror or "") if isinstance(error, OSError) else str(error)
            failed[scan.name] = without_names(text, paths, words)
            logger.warning("%s could not be measured: %s", scan.name, failed[scan.name])
        except Exception as error:  # one scan's surprise must not lose the others
            failed[scan.name] = unexpected(scan.name, error, paths, words)
    try:
        return _compared(patient, points, folder, options, failed)
    except (M2UNetError, OSError) as error:
        logger.warning("%s could not be compared: %s", patient.name, error)
        return FollowupOutcome(patient, None, failed | {"comparison": str(error)})
    except Exception as error:
        reason = unexpected(patient.name, error, [scan.path for scan in patient.scans], PatientWords())
        return FollowupOutcome(patient, None, failed | {"comparison": reason})


def _compared(
    patient: PatientScans, points: list[TimePoint], folder: Path, options: FollowupOptions, failed: dict[str, str]
) -> FollowupOutcome:
    remove_files(folder, _FILES)  # whatever comes now, the earlier comparison no longer holds
    if len(points) < 2:
        scans = [scan.name for scan in patient.scans]
        write_json(
            folder / ERROR_FILE, {"schema": ERROR_SCHEMA, "patient": patient.name, "scans": scans, "failed": failed}
        )
        return FollowupOutcome(patient, None, failed)
    found = follow(points, options.error)
    _write(patient, found, folder, options, failed)
    return FollowupOutcome(patient, found, failed)


def _other_scans(folder: Path, patient: PatientScans, identities: dict[str, ScanIdentity]) -> str | None:
    """Why a folder is not this patient's: it holds the follow-up of scans that are not among these."""
    kept = read_json_file(folder / DOCUMENT_FILE)
    if kept is None:
        foreign = [name for name in _FILES if (folder / name).exists() and name != ERROR_FILE]
        return f"its folder holds {', '.join(foreign)}, and nothing that says of whom" if foreign else None
    digests = {identity.digest for identity in identities.values()}
    dated = {(scan.name, scan.date.isoformat()) for scan in patient.scans}
    points: list[dict[str, Any]] = kept.get("points") or []
    known = kept.get("scans")
    if isinstance(known, dict):
        same = set(known.values()) <= digests
    else:  # of a version that kept no digests
        same = {(point.get("name"), point.get("date")) for point in points} <= dated
    if same:
        return None
    return f"the folder {patient.name} holds the follow-up of other scans; choose another --out, or delete it"


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
    measured = {point.name for point in found.points}
    scans = {scan.name: identify_scan(scan.path).digest for scan in patient.scans if scan.name in measured}
    document = {
        "schema": SCHEMA,
        "notice": NOTICE,
        "warnings": warnings,
        "patient": patient.name,
        "scans": scans,
        **found.to_dict(),
        "failed": failed,
        "trained_on": None if options.predictor is None else options.predictor.identity.trained_on,
        "versions": versions(),
    }
    write_json(folder / DOCUMENT_FILE, document)


def _warnings(options: FollowupOptions) -> list[str]:
    if options.predictor is None:
        return []
    identity = options.predictor.identity
    return list(model_warnings(identity.preset, identity.trained_on))


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
    volume = read_scan(scan.path, accept=scan.accept)
    given = scan.lobes is not None and not options.predict_lobes
    severity: tuple[float, float] | str = NO_MODEL
    lobes = None
    warnings = [finding.code for finding in volume.findings if finding.level == "warning"]
    if given and scan.lobes is not None:
        mask = read_lobes(scan.lobes, volume, options.lobe_codes, accept=scan.accept)
        lobes = mask.array
        warnings += [finding.code for finding in mask.findings if finding.level == "warning"]
    if options.predictor is not None:
        prediction = options.predictor.predict(volume, lobes=not given, seed=options.seed, accept=scan.accept)
        severity = absence_reason(prediction)
        if prediction.severity is not None:
            severity = (prediction.severity.probability, prediction.severity.spread)
        if prediction.lobes is not None:
            lobes = postprocess_lobes(prediction.lobes, volume.voxel_ml).mask
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
        warnings=warnings,
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
        scan.accept,
        identity.digest,
        identity.fingerprint,
        None if scan.lobes is None else source_fingerprint(all_files(scan.lobes)),
        None if predictor is None else predictor.identity.weights_sha256,
        options.predict_lobes,
        options.seed,
        options.lobe_codes,
        CHECKS,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _point(values: dict[str, Any]) -> TimePoint:
    parts = {name: PartFigures(**part) for name, part in values["parts"].items()}
    date = datetime.date.fromisoformat(values["date"])
    return TimePoint(**{**values, "parts": parts, "date": date, "warnings": tuple(values["warnings"])})


def _thumbnail(name: str) -> str:
    return f"{name}.png"


# --- many patients ---------------------------------------------------------------------------------------------------


def _check_summary(out: Path) -> None:
    """Raises ConfigError if the folder's table is somebody else's."""
    table = out / SUMMARY_FILE
    if table.is_file() and not table.read_text(encoding="utf-8", errors="replace").startswith(",".join(_COLUMNS)):
        raise ConfigError(
            "The folder of results holds a file that is not m2unet's and would be replaced",
            found=SUMMARY_FILE,
            mend="choose another --out, or give the file another name",
        )


def _write_summary(out: Path) -> None:
    """One row for each patient of the folder, whichever call measured it."""
    rows = []
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        document, error = (read_json_file(folder / name) or {} for name in (DOCUMENT_FILE, ERROR_FILE))
        if document.get("schema") == SCHEMA:
            rows.append(_row(document))
        elif error.get("schema") == ERROR_SCHEMA:
            failed = "; ".join(error["failed"])
            rows.append({"patient": error["patient"], "scans": len(error["scans"]), "failed": failed})
    text = io.StringIO()
    table = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: "" if row.get(name) is None else row[name] for name in _COLUMNS})
    write_text(out / SUMMARY_FILE, text.getvalue())


def _row(document: dict[str, Any]) -> dict[str, Any]:
    overall, points, failed = document["overall"], document["points"], document["failed"]
    change = overall["parts"]["lungs"]["opacity_percent"]
    return {
        "patient": document["patient"],
        "scans": len(points) + len(failed),
        "first": points[0]["date"],
        "last": points[-1]["date"],
        "days": overall["days"],
        "verdict": overall["verdict"],
        **{name: _rounded(change[name]) for name in ("change", "low", "high")},
        "latest": document["steps"][-1]["verdict"],
        "failed": "; ".join(failed) or None,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
