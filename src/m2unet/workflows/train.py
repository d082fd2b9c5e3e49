"""Train one model in a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import Dataset

from m2unet.bags.bag import Bag
from m2unet.bags.dataset import BagDataset, oversample
from m2unet.cohort.folds import Split
from m2unet.cohort.store import Store
from m2unet.config import Config
from m2unet.models.base import SeverityModel
from m2unet.models.registry import build_model
from m2unet.models.weights import save_model
from m2unet.training.distributed import World
from m2unet.training.fit import Fit, Hooks
from m2unet.training.record import EpochRecord
from m2unet.training.state import STATE_FILE, TrainingState
from m2unet.workflows.confidence import fit_confidence
from m2unet.workflows.leakage import check_split, record_training
from m2unet.workflows.model_card import write_model_card
from m2unet.workflows.progress import NoProgress, Progress
from m2unet.workflows.run_folder import RunFolder
from m2unet.workflows.usable import UsableScans, check_usable, labels_of, record_left_out, usable_scans
from m2unet.workflows.validation import BagValidator

SPLIT_SCHEMA = "m2unet.split/1"


@dataclass(frozen=True)
class TrainJob:
    """One training.

    Attributes:
        store: prepared scans; holds every scan of ``split.train`` and ``split.validation``.
        split: scan ids by use; those the method cannot learn from are left out.
        config: the run's configuration.
        out: the run folder.
        trained_on: what the scans are, in words, for the model's card.
        resume: go on with a run that was interrupted.
        by: whether the split keeps patients together; ``scan`` lets it leak, with a warning.
        left_out: scans of the cohort that are in no part of the split: by id, the use they would have had, and why not.
    """

    store: Store
    split: Split
    config: Config
    out: Path
    trained_on: str
    resume: bool = False
    by: Literal["patient", "scan"] = "patient"
    left_out: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def train_run(job: TrainJob, *, world: World | None = None, progress: Progress | None = None) -> RunFolder:
    """Train, and write the model to ``out/model``; a finished run is left as it is.

    A network for lobes alone trains and is validated on the scans that have a mask, one for severity alone on those
    that have a severity, M²UNet on those that have either; ``out/left_out.json`` says which were left out.

    Raises:
        RunError: if the folder holds another run, the split leaks, or no training scan carries what the model learns
            from.
        TrainingInterruptedError: when asked to stop; the state is saved.
    """
    world = world or World()
    run = RunFolder(job.out)
    if run.finished:
        if world.main:
            run.start(job.config, split_document(job.split), resume=job.resume)
        return run
    check_split(job.store, job.split, by=job.by)  # before there is a folder
    model = seeded_model(job.config)
    usable = usable_scans(job.store, job.split, model.tasks)
    check_labels(job.store, usable.split.train, model)
    if world.main:
        run.start(job.config, split_document(job.split), resume=job.resume)
    usable = UsableScans(usable.split, {**job.left_out, **usable.left_out})
    job = replace(job, split=usable.split)
    if world.main:
        record_training(job.store, job.split, job.out)
        record_left_out(usable, job.out)
    shown: Progress = progress or NoProgress()
    if not world.main:
        shown = NoProgress()
    with shown.stage("training") as step:
        hooks = _hooks(job, world, step)
        state = Fit(model, EpochBags(job), job.config, job.out, world, hooks).run(resume=job.resume)
    if world.main:
        with shown.stage("calibrating") as step:
            _finish(job, run, model, state, usable.reasons)
            step(1, 1)
    return run


def split_document(split: Split) -> dict[str, Any]:
    """What ``split.json`` holds."""
    return {"schema": SPLIT_SCHEMA, **asdict(split)}


def seeded_model(config: Config) -> SeverityModel:
    """A fresh model whose weights depend on the run's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_model(config.model)


def check_labels(store: Store, scan_ids: Sequence[str], model: SeverityModel) -> None:
    """Refuse to train a task for which no scan has a label.

    Raises:
        RunError: naming what is missing.
    """
    check_usable([labels_of(store, scan_id) for scan_id in scan_ids], model.tasks)


@dataclass(frozen=True)
class EpochBags:
    """The training bags of an epoch, severe scans repeated as configured."""

    job: TrainJob

    def __call__(self, epoch: int) -> Dataset[Bag]:
        """Dataset of epoch ``epoch``, from 0."""
        job = self.job
        severities = [job.store.open(scan_id).severity for scan_id in job.split.train]
        entries = oversample(job.split.train, severities, job.config.train.oversample, seed=job.config.seed)
        return BagDataset(job.store, entries, job.config.bag, seed=job.config.seed, epoch=epoch)


def _hooks(job: TrainJob, world: World, step: object) -> Hooks:
    def on_step(done: int, total: int, loss: float) -> None:
        step(done, total, f"loss {loss:.3f}")  # type: ignore[operator]

    def on_epoch(record: EpochRecord) -> None:
        return

    validator = None
    if job.split.validation:
        validator = BagValidator(job.store, job.split.validation, job.config, world.device)
    return Hooks(validate=validator, on_step=on_step, on_epoch=on_epoch)


def _finish(
    job: TrainJob, run: RunFolder, model: SeverityModel, state: TrainingState, left_out: Mapping[str, int]
) -> None:
    device = next(model.parameters()).device
    model.checkpointing = False
    confidence = fit_confidence(model.eval(), job.store, job.split, job.config, device)
    extra: dict[str, Any] = {
        "trained_on": job.trained_on,
        "training_scans": len(job.split.train),
        "left_out_scans": dict(left_out),
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "validation": {k[4:]: v for k, v in state.history[-1].items() if k.startswith("val_")} if state.history else {},
    }
    if confidence is not None:
        run.model.mkdir(parents=True, exist_ok=True)
        confidence.save_reference(run.model)
        extra["confidence"] = confidence.to_card()
    save_model(model.cpu(), job.config, run.model, extra)
    (job.out / STATE_FILE).unlink(missing_ok=True)
    write_model_card(job.out, list(job.store.rows.values()))
