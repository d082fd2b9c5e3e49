"""Predict many scans with one loaded model: a folder a case, bad cases reported, finished ones skipped."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from m2unet.anatomy import CodeSystem
from m2unet.cohort.manifest import read_manifest
from m2unet.ct.findings import QualityError
from m2unet.errors import M2UNetError
from m2unet.files import write_json
from m2unet.handcrafted.predictor import HandcraftedPredictor
from m2unet.report.cohort_page import CohortCase
from m2unet.report.result import ResultDocument
from m2unet.workflows.case import ERROR_FILE, RESULT_FILE, CaseOptions, write_case
from m2unet.workflows.cohort_page import write_cohort_page
from m2unet.workflows.progress import NoProgress, Progress
from m2unet.workflows.scoring import AnyPredictor

logger = logging.getLogger(__name__)

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".dcm")


@dataclass(frozen=True)
class Case:
    """One scan to predict.

    Attributes:
        name: folder of its results; from the manifest's scan_id, or from the file's or folder's own name.
        path: the scan.
        mask: its lobe mask, for methods that need one; networks do not look at it.
        codes: whose codes the mask uses.
    """

    name: str
    path: Path
    mask: Path | None = None
    codes: CodeSystem = "m2unet"


@dataclass(frozen=True)
class CaseOutcome:
    """What became of a case.

    Attributes:
        case: which.
        folder: its results.
        result: what was found; None if it failed.
        error: why it failed, else None.
        skipped: it was finished before.
    """

    case: Case
    folder: Path
    result: ResultDocument | None
    error: str | None = None
    skipped: bool = False


def find_cases(inputs: Sequence[str | Path]) -> list[Case]:
    """The cases named by files, DICOM folders or manifests (``.csv``), each with a name of its own.

    Raises:
        ManifestError: if a manifest has faults.
    """
    cases: list[Case] = []
    taken: set[str] = set()
    for given in map(Path, inputs):
        if given.suffix.lower() == ".csv":
            found = [Case(row.scan_id, row.image, row.lobes) for row in read_manifest(given, check_files=False).rows]
        else:
            found = [Case(_stem(given), given)]
        for case in found:
            name, number = case.name, 2
            while name in taken:
                name, number = f"{case.name}_{number}", number + 1
            taken.add(name)
            cases.append(replace(case, name=name))
    return cases


def _stem(path: Path) -> str:
    name = path.resolve().name
    for ending in ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)] or "scan"
    return name or "scan"


def predict_cases(
    predictor: AnyPredictor,
    cases: Sequence[Case],
    out: Path,
    options: CaseOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Iterator[CaseOutcome]:
    """Predict cases one after the other, yielding each as it is done; a bad one never stops the others.

    For each case ``out/NAME/`` gets what :func:`m2unet.workflows.case.write_case` writes, or ``error.json`` if it
    failed. ``result.json`` is written last: a case without it is not finished. Several cases also get a table and a
    page beside their folders, when the last is done.
    """
    options = options or CaseOptions()
    shown: Progress = progress or NoProgress()
    rows: list[CohortCase] = []
    with shown.stage("predicting") as step:
        for number, case in enumerate(cases, 1):
            outcome = predict_case(predictor, case, out / case.name, options)
            rows.append(CohortCase(case.name, outcome.result, outcome.error))
            yield outcome
            step(number, len(cases))
    if len(rows) > 1:
        write_cohort_page(out, rows, page=options.report)


def predict_case(predictor: AnyPredictor, case: Case, folder: Path, options: CaseOptions) -> CaseOutcome:
    """Predict one case into its folder, or say why not; a finished one is left as it is."""
    try:
        handcrafted = isinstance(predictor, HandcraftedPredictor)
        fingerprint = source_fingerprint(case.path, case.mask if handcrafted else None)
        kept = None if options.overwrite else _finished(folder, predictor, fingerprint, options)
        if kept is not None:
            return CaseOutcome(case, folder, kept, skipped=True)
        if isinstance(predictor, HandcraftedPredictor):
            prediction = predictor.predict(
                case.path, seed=options.seed, mask=case.mask, codes=case.codes, accept=options.accept
            )
        else:
            prediction = predictor.predict(case.path, seed=options.seed, explain=options.explain, accept=options.accept)
        result = write_case(prediction, case.name, folder, options, fingerprint=fingerprint)
    except (M2UNetError, OSError, MemoryError) as error:
        logger.warning("%s failed: %s", case.name, error)
        findings = [f.to_dict() for f in error.findings] if isinstance(error, QualityError) else []
        _write_error(folder, str(error), findings)
        return CaseOutcome(case, folder, None, error=str(error))
    return CaseOutcome(case, folder, result)


def _write_error(folder: Path, message: str, findings: list[dict[str, str]]) -> None:
    try:
        (folder / RESULT_FILE).unlink(missing_ok=True)
        write_json(folder / ERROR_FILE, {"schema": "m2unet.error/1", "error": message, "findings": findings})
    except OSError as error:
        logger.error("the results folder cannot be written: %s", error.strerror)


def _finished(folder: Path, predictor: AnyPredictor, fingerprint: str, options: CaseOptions) -> ResultDocument | None:
    """The kept result, if it is of the same scan, model and settings, and what was asked for is there."""
    path = folder / RESULT_FILE
    if not path.is_file():
        return None
    try:
        kept = ResultDocument.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, ValueError):
        return None
    same = kept.source_fingerprint == fingerprint and kept.model.weights_sha256 == predictor.identity.weights_sha256
    there = all((folder / name).is_file() for name in kept.files.values())
    return kept if same and there and options.satisfied_by(kept) else None


def source_fingerprint(path: Path, mask: Path | None = None) -> str:
    """SHA-256 over names, sizes and modification times of a scan's files: whether it is the scan it was.

    Args:
        path: the scan.
        mask: a lobe mask that the prediction depends on.

    Raises:
        OSError: if the path does not exist.
    """
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in (*files, *([mask] if mask else [])):
        stat = file.stat()
        digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
