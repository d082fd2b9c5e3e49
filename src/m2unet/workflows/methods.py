"""Train and load any method, network or not: one interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from m2unet.anatomy import CodeSystem
from m2unet.cohort.manifest import Manifest
from m2unet.cohort.store import Store
from m2unet.config import Config
from m2unet.files import write_text
from m2unet.handcrafted.features import Measured, feature_list_csv, features_csv
from m2unet.handcrafted.forest import Forest
from m2unet.handcrafted.measuring import Measurer, measure_all
from m2unet.handcrafted.model import Decider, Examples, estimate, fit_decider, is_handcrafted, save_decider
from m2unet.handcrafted.predictor import HandcraftedPredictor
from m2unet.handcrafted.score_rule import ScoreRule
from m2unet.inference.confidence import OWN_RULE, Confidence
from m2unet.inference.predictor import Predictor, find_model
from m2unet.models.methods import is_network, method
from m2unet.training.distributed import World
from m2unet.workflows.confidence import JudgedScans, fit_scores, reference_of
from m2unet.workflows.leakage import KnownScan, check_split, read_training, record_training, refuse_other_images
from m2unet.workflows.model_card import write_model_card
from m2unet.workflows.progress import NoProgress, Progress
from m2unet.workflows.run_folder import RunFolder
from m2unet.workflows.scoring import AnyPredictor
from m2unet.workflows.store import prepared_store
from m2unet.workflows.train import TrainJob, split_document, train_run
from m2unet.workflows.usable import check_usable, labels_of, record_left_out, usable_scans


def method_store(
    cohort: Manifest,
    folder: Path,
    config: Config,
    *,
    world: World | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    lobe_codes: CodeSystem | None = None,
) -> Store:
    """The store a method trains from: prepared for a network; opened as it is, or begun, for a handcrafted method."""
    if is_network(config.model.name):
        return prepared_store(
            cohort, folder, config, world=world, workers=workers, progress=progress, lobe_codes=lobe_codes
        )
    if (world or World()).main:
        Store.create(folder, config.prepare, lobe_codes=lobe_codes)
    (world or World()).barrier()
    return Store(folder, cohort.rows)


def train_method(job: TrainJob, *, world: World | None = None, progress: Progress | None = None) -> RunFolder:
    """Train any method in a run folder; a finished run is left as it is.

    Raises:
        RunError, TrainingInterruptedError: as :func:`m2unet.workflows.train.train_run`.
    """
    refuse_other_images(job.store, job.split, job.out)
    if is_network(job.config.model.name):
        return train_run(job, world=world, progress=progress)
    return _train_handcrafted(job, progress or NoProgress())


def load_method(
    run: str | Path, *, device: str = "cpu", engine: str = "reference", cache: Path | None = None
) -> AnyPredictor:
    """Load whatever a run folder holds.

    Args:
        run: a run folder, or a model folder.
        device: where networks compute.
        engine: what computes networks, see :data:`m2unet.inference.engine.ENGINES`.
        cache: folder of finished measurements of scans, for handcrafted methods.

    Raises:
        ModelError: if there is no model there, or its files are damaged.
    """
    if is_handcrafted(find_model(Path(run))):
        return HandcraftedPredictor.load(run, device=device, cache=cache)
    return Predictor.load(run, device=device, engine=engine)


def measurements_of(store: Store) -> Path:
    """Folder beside a store that keeps measurements of its scans, shared by every run on the cohort."""
    return store.folder.with_name(f"{store.folder.name}-measurements")


def _train_handcrafted(job: TrainJob, progress: Progress) -> RunFolder:
    run = RunFolder(job.out)
    if run.finished:
        run.start(job.config, split_document(job.split), resume=job.resume)
        return run
    check_split(job.store, job.split, by=job.by)  # before there is a folder
    tasks = method(job.config.model.name).tasks
    usable = usable_scans(job.store, job.split, tasks)
    check_usable([labels_of(job.store, scan_id) for scan_id in usable.split.train], tasks)
    run.start(job.config, split_document(job.split), resume=job.resume)
    job = replace(job, split=usable.split)
    record_training(job.store, job.split, job.out, _seen_by_lobe_model(job))
    record_left_out(usable, job.out)
    measurer = Measurer(job.config.handcrafted, measurements_of(job.store))
    known = [job.store.rows[scan_id] for scan_id in (*job.split.train, *job.split.validation)]
    with progress.stage("measuring scans") as step:
        measured = measure_all(measurer, known, job.store.lobe_codes, step)
    decider = fit_decider(
        job.config, _examples(job, measured, job.split.train), _examples(job, measured, job.split.validation)
    )
    confidence = _confidence(job, decider, measured)
    write_text(job.out / "features.csv", features_csv(measured))
    write_text(job.out / "feature_list.csv", feature_list_csv())
    extra: dict[str, object] = {"trained_on": job.trained_on, "training_scans": len(job.split.train)}
    extra["left_out_scans"] = usable.reasons
    if isinstance(decider, Forest):
        order = decider.importances.argsort()[::-1][:10]
        extra["most_used_features"] = {decider.features[i]: round(float(decider.importances[i]), 4) for i in order}
    else:
        extra["threshold"] = decider.threshold
    run.model.mkdir(parents=True, exist_ok=True)
    confidence.save_reference(run.model)
    extra["confidence"] = confidence.to_card()
    save_decider(decider, job.config, run.model, extra)
    write_model_card(job.out, list(job.store.rows.values()))
    return run


def _seen_by_lobe_model(job: TrainJob) -> list[KnownScan]:
    """The scans that the network was trained on which finds the lobes of scans without a mask."""
    settings, rows = job.config.handcrafted, job.store.rows
    needed = settings.lobes == "model" or any(rows[s].lobes is None for s in (*job.split.train, *job.split.validation))
    return (read_training(Path(settings.lobe_model)) or []) if needed and settings.lobe_model is not None else []


def _confidence(job: TrainJob, decider: Decider, measured: Mapping[str, Measured]) -> Confidence:
    """Calibration and operating point from the validation scans, and the training scans' features as reference."""
    rows, settings = job.store.rows, job.config.confidence
    chosen = [scan_id for scan_id in job.split.validation if scan_id in measured]
    held = [estimate(decider, measured[scan_id]) for scan_id in chosen]
    known = JudgedScans(
        [int(rows[scan_id].severity or 0) for scan_id in chosen],
        [found.probability for found in held],
        [rows[scan_id].patient_id for scan_id in chosen],
    )
    rule = None
    if isinstance(decider, ScoreRule):
        how = " (youden on validation scans)" if job.config.handcrafted.threshold == "validation" else ""
        rule = f"{OWN_RULE}: severity score above {decider.threshold:g}{how}"
    found = fit_scores(known, settings, rule)
    training = [scan_id for scan_id in job.split.train if scan_id in measured][: settings.reference_scans]
    seen = [(rows[s].patient_id, estimate(decider, measured[s]).signature) for s in training]
    reference, reason = reference_of(seen, [each.signature for each in held], settings)
    return replace(found, reference=reference, reference_reason=reason)


def _examples(job: TrainJob, measured: dict[str, Measured], scan_ids: Sequence[str]) -> Examples:
    chosen = [scan_id for scan_id in scan_ids if scan_id in measured]
    severities = [job.store.rows[scan_id].severity for scan_id in chosen]
    return Examples([int(value) for value in severities if value is not None], [measured[s] for s in chosen])
