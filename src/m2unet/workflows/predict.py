"""Predict many scans with one loaded model: a folder a case, bad cases reported, finished ones skipped."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from m2unet.anatomy import CodeSystem
from m2unet.cohort.manifest import read_manifest
from m2unet.ct.findings import QualityError
from m2unet.ct.identity import ScanIdentity, all_files, identify_scan, path_digest, source_fingerprint
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.errors import ConfigError, M2UNetError, ScanError
from m2unet.files import require_writable
from m2unet.handcrafted.predictor import HandcraftedPredictor
from m2unet.inference.predictor import Prediction
from m2unet.report.result import ResultDocument
from m2unet.workflows.case import CaseOptions, write_case
from m2unet.workflows.case_folder import (
    ERROR_FILE,
    RESULT_FILE,
    CaseFolder,
    Claim,
    OccupiedError,
    SourceRecord,
    read_json_file,
)
from m2unet.workflows.case_names import UNEXPECTED, case_name, check_names, unexpected, without_names
from m2unet.workflows.collect import CohortFolder
from m2unet.workflows.progress import NoProgress, Progress
from m2unet.workflows.scoring import AnyPredictor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """One scan to predict.

    Attributes:
        name: of its results: the manifest's scan_id, or the user's; None for the file's or folder's own name with the
            scan's digest, which is known once its header was read.
        path: the scan.
        mask: its lobe mask, for methods that need one; networks do not look at it.
        codes: whose codes the mask uses.
        series: of a DICOM folder, as for :func:`m2unet.ct.read.read_scan`.
        extra: the user's own columns of a manifest.
        accept: codes of errors of this scan that the user knows better, from a manifest.
    """

    name: str | None
    path: Path
    mask: Path | None = None
    codes: CodeSystem = "auto"
    series: str | None = None
    extra: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    accept: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseOutcome:
    """What became of a case.

    Attributes:
        case: which; its name is that of its folder.
        folder: its results.
        result: what was found; None if it failed.
        error: why it failed, else None.
        skipped: it was finished before.
        renamed: its name was replaced, because it resembles what the scan's header says of the patient.
    """

    case: Case
    folder: Path
    result: ResultDocument | None
    error: str | None = None
    skipped: bool = False
    renamed: bool = False

    @property
    def name(self) -> str:
        """Of the case."""
        return self.folder.name

    @property
    def unexpected(self) -> bool:
        """Whether it failed by a fault of the program or the machine, not of the scan."""
        return (self.error or "").startswith(UNEXPECTED)


def find_cases(inputs: Sequence[str | Path], names: Sequence[str] = (), *, series: str | None = None) -> list[Case]:
    """The cases named by files, DICOM folders or manifests (``.csv``). A scan given twice is one case.

    Args:
        inputs: in any order; it has no say in the names.
        names: of the cases, one for each input; only without manifests.
        series: of a single DICOM folder.

    Raises:
        ManifestError: if a manifest has faults.
        ConfigError: names that do not fit, or two scans of one name.
    """
    paths = [Path(given) for given in inputs]
    tables = [path for path in paths if path.suffix.lower() == ".csv"]
    if names and (tables or len(names) != len(paths)):
        found = "a manifest, which names its scans itself" if tables else f"{len(names)} names, {len(paths)} scans"
        raise ConfigError("Names (--name) are given one for each scan, in order", found=found)
    if series is not None and (tables or len(paths) != 1):
        raise ConfigError("A series (--series) is chosen from one DICOM folder", found=f"{len(paths)} inputs")
    cases: list[Case] = []
    for number, path in enumerate(paths):
        if path in tables:
            rows = read_manifest(path, check_files=False).rows
            cases += [Case(row.scan_id, row.image, row.lobes, extra=row.extra, accept=row.accept) for row in rows]
        else:
            cases.append(Case(names[number] if names else None, path, series=series))
    return _single(cases)


def _single(cases: Sequence[Case]) -> list[Case]:
    """The cases without repetitions.

    Raises:
        ConfigError: two scans of one name, also where only capitals differ.
    """
    check_names([case.name for case in cases if case.name is not None], "--name or scan_id")
    kept: dict[tuple[str | None, Path], Case] = {}
    named: dict[str, Path] = {}
    twice: list[str] = []
    for case in cases:
        place = case.path.resolve()
        if case.name is not None and named.setdefault(case.name.casefold(), place) != place:
            twice.append(case.name)
        kept.setdefault((case.name and case.name.casefold(), place), case)
    if twice:
        raise ConfigError(
            "Two scans have the same name", found=", ".join(sorted(set(twice))), mend="give each a name of its own"
        )
    return list(kept.values())


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
    failed. ``result.json`` is written last: a case without it is not finished. The table and the page of all cases in
    ``out`` are written anew after each, see :class:`m2unet.workflows.collect.CohortFolder`.

    Raises:
        OutputError: the folder cannot be written, before the first scan is read.
        ConfigError: it holds tables of somebody else.
    """
    options = options or CaseOptions()
    require_writable(out)
    table = CohortFolder(out, page=options.report)
    table.check()
    shown: Progress = progress or NoProgress()
    done: dict[str, CaseOutcome] = {}
    with shown.stage("predicting") as step:
        for number, case in enumerate(cases, 1):
            outcome = predict_case(predictor, case, out, options, done=done)
            if outcome.result is not None:
                done[outcome.name] = outcome
            table.update()
            yield outcome
            step(number, len(cases))


def predict_case(
    predictor: AnyPredictor,
    case: Case,
    out: Path,
    options: CaseOptions,
    *,
    done: Mapping[str, CaseOutcome] = MappingProxyType({}),
) -> CaseOutcome:
    """Predict one case into its folder, or say why not; a finished one is left as it is.

    Whatever goes wrong becomes the outcome's error, and ``error.json`` in the case's own folder; a folder that holds
    another scan's result, or files of somebody else, is not touched.

    Args:
        predictor: the model.
        case: which.
        out: folder of all results.
        options: what to write.
        done: by name, what this call finished before: a copy of such a scan is not predicted again.
    """
    options = replace(options, accept=tuple(sorted({*options.accept, *case.accept})))
    identity = identify_scan(case.path, series=case.series)
    name, renamed = case_name(case.path, case.name, identity, identify=options.identify)
    case, folder = replace(case, name=name), CaseFolder(out, name)
    outcome = CaseOutcome(case, folder.path, None, renamed=renamed)
    copy = done[name].result if name in done else None
    if copy is not None and (copy.scan.digest, copy.scan.images) == (identity.digest, identity.images):
        return replace(outcome, result=copy, skipped=True)
    try:
        claim = folder.claim(identity, _record(case, name, identity))
    except OccupiedError as error:
        found = _read_error(case) if identity.basis == "path" else None
        message = _message(found or error, case, identity)
        logger.warning("%s failed: %s", name, message)
        return replace(outcome, error=message)
    except M2UNetError as error:
        return replace(outcome, error=_message(error, case, identity))
    except Exception as error:
        return _unexpected(outcome, error, identity)
    try:
        return _predict_claimed(predictor, outcome, claim, identity, options)
    finally:
        folder.release()


def _predict_claimed(
    predictor: AnyPredictor, outcome: CaseOutcome, claim: Claim, identity: ScanIdentity, options: CaseOptions
) -> CaseOutcome:
    case, findings = outcome.case, []
    try:
        result, skipped = _finished_or_made(predictor, case, claim, identity, options)
        _forget_failure(case, claim.folder)
        return replace(outcome, result=result, skipped=skipped)
    except (M2UNetError, OSError) as error:
        failed = replace(outcome, error=_message(error, case, identity))
        logger.warning("%s failed: %s", outcome.name, failed.error)
        if isinstance(error, QualityError):
            findings = [
                {key: without_names(text, _paths(case), identity.patient) for key, text in found.to_dict().items()}
                for found in error.findings
            ]
    except Exception as error:
        failed = _unexpected(outcome, error, identity)
        del error
        _free_memory()
    try:
        claim.fail(failed.error or "", findings)
    except (M2UNetError, OSError) as error:
        logger.error("%s: its error.json cannot be written: %s", outcome.name, _message(error, case, identity))
    return failed


def _finished_or_made(
    predictor: AnyPredictor, case: Case, claim: Claim, identity: ScanIdentity, options: CaseOptions
) -> tuple[ResultDocument, bool]:
    of_volume, folder = identity, claim.folder.path
    if isinstance(predictor, HandcraftedPredictor) and case.mask is not None:  # the result depends on it
        identity = replace(identity, fingerprint=source_fingerprint([*identity.files, *all_files(case.mask)]))
    kept = None if options.overwrite else _finished(folder, predictor, identity, options)
    if kept is not None:
        return kept, True
    started = time.perf_counter()
    volume = read_scan(case.path, series=case.series, accept=options.accept)
    read = time.perf_counter() - started
    _check_same(of_volume, volume)
    prediction = _predict(predictor, case, volume, options)
    prediction.seconds["read"] = read
    name = claim.folder.name
    return write_case(prediction, name, folder, options, identity=identity, leftovers=claim.resumed), False


def _predict(predictor: AnyPredictor, case: Case, volume: Volume, options: CaseOptions) -> Prediction:
    if isinstance(predictor, HandcraftedPredictor):
        return predictor.predict(volume, seed=options.seed, mask=case.mask, codes=case.codes, accept=options.accept)
    return predictor.predict(volume, seed=options.seed, explain=options.explain, accept=options.accept)


def _check_same(identity: ScanIdentity, volume: Volume) -> None:
    """Raises ScanError unless what was read is what the folder was claimed for."""
    uid = str(volume.source.header.get("series_instance_uid") or "").strip()
    kept = not identity.files or source_fingerprint(identity.files) == identity.fingerprint
    if not kept or (identity.basis == "series" and uid != identity.series_uid):
        raise ScanError("The scan was changed while it was read", mend="predict it again")


def _finished(
    folder: Path, predictor: AnyPredictor, identity: ScanIdentity, options: CaseOptions
) -> ResultDocument | None:
    """The kept result, if it is of the same scan, model and settings, and what was asked for is there."""
    try:
        kept = ResultDocument.model_validate_json((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError):
        return None
    same = kept.source_fingerprint == identity.fingerprint and kept.scan.digest == identity.digest
    same = same and kept.model.weights_sha256 == predictor.identity.weights_sha256
    there = all((folder / name).is_file() for name in kept.files.values())
    return kept if same and there and options.satisfied_by(kept) else None


def _forget_failure(case: Case, folder: CaseFolder) -> None:
    """Remove what an earlier call left of this path when it could not be read, under the name that it had then."""
    failed = ScanIdentity(path_digest(case.path), "path", "")
    name, _ = case_name(case.path, None, failed)
    other = CaseFolder(folder.out, name)
    left = read_json_file(other.path / ERROR_FILE)
    if name == folder.name or left is None or left.get("scan_digest") != failed.digest:
        return
    for file in (other.path / ERROR_FILE, other.source_file):
        file.unlink(missing_ok=True)
    for place in (other.path, other.source_file.parent):
        with suppress(OSError):  # it holds something else
            place.rmdir()


def _record(case: Case, name: str, identity: ScanIdentity) -> SourceRecord:
    path = str(case.path.absolute()).encode("utf-8", "backslashreplace").decode()
    return SourceRecord(
        case=name,
        digest=identity.digest,
        images=identity.images,
        path=path,
        study_instance_uid=identity.study_uid or "",
        series_instance_uid=identity.series_uid or "",
        columns=case.extra,
    )


def _read_error(case: Case) -> Exception | None:
    """Why a scan cannot be read."""
    try:
        read_scan(case.path, series=case.series)
    except Exception as error:
        return error
    return None


def _paths(case: Case) -> list[Path]:
    return [case.path, *([case.mask] if case.mask else [])]


def _message(error: Exception, case: Case, identity: ScanIdentity) -> str:
    """An error in words, without a path and without the patient's particulars."""
    text = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
    return without_names(text, _paths(case), identity.patient)


def _unexpected(outcome: CaseOutcome, error: Exception, identity: ScanIdentity) -> CaseOutcome:
    message = unexpected(outcome.name, error, _paths(outcome.case), identity.patient)
    return replace(outcome, error=message)


def _free_memory() -> None:
    """Give back what a failed case held on a GPU, so that the next may find room."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
