"""The paper's experiments on a cohort: every training once, resumable, folds in processes, then tables and figures."""

from __future__ import annotations

import csv
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from m2unet.anatomy import CodeSystem
from m2unet.cohort.folds import Split, load_folds, make_folds, save_folds
from m2unet.cohort.manifest import Manifest, ManifestRow
from m2unet.cohort.store import Store
from m2unet.config import Config, load_config
from m2unet.errors import M2UNetError, WorkerError
from m2unet.files import write_json
from m2unet.models.methods import METHODS
from m2unet.paper.outcome import OVERLAPS, Outcome, ScanResult
from m2unet.paper.plan import Experiment, experiments, wanted
from m2unet.processes import WorkerPool, describe_exit
from m2unet.training.interrupt import TrainingInterruptedError
from m2unet.workflows.crossval import CrossValidation
from m2unet.workflows.progress import NoProgress, Progress
from m2unet.workflows.run_folder import RunFolder, read_json
from m2unet.workflows.store import prepared_store

logger = logging.getLogger(__name__)

QUICK_SCANS, QUICK_FOLDS = 30, 3
QUICK_SETTINGS = ("train.epochs=4", "bag.test_bags=2", "handcrafted.trees=100")
QUICK_BAG = 12
"""``--quick``: a look at whether everything runs, with bags of at most so many; its figures mean nothing."""

COMMON_SETTINGS = ("confidence.reference_scans=0",)
"""What no table needs is not computed: the reference of usual scans."""

LOBE_METHOD = "m2unet_position"
"""Whose lobes the handcrafted methods use for scans without a mask: the model of the same fold."""


@dataclass(frozen=True)
class Reproduction:
    """One reproduction.

    Attributes:
        manifest: the cohort.
        out: gets ``runs/``, ``store/``, the tables, figures and ``index.html``.
        preset: a preset's name or a YAML file.
        overrides: changes to it, the same for every method.
        seed: of folds, trainings and permutation tests.
        only: tables and figures wanted, such as ``table2``; all if empty.
        quick: one fold of a part of the cohort, trained for a moment.
        jobs: processes that train at the same time.
        device: where to compute.
        data: the cohort in words; None counts it.
        folds: how many folds are made.
        only_folds: the folds that are run; all if empty.
        tables_only: train nothing, gather what is finished.
        lobe_codes: whose codes the lobe masks use; None recognises each, or takes what the store was begun with.
    """

    manifest: Manifest
    out: Path
    preset: str = "paper"
    overrides: tuple[str, ...] = ()
    seed: int = 0
    only: tuple[str, ...] = ()
    quick: bool = False
    jobs: int = 1
    device: str = "cpu"
    data: str | None = None
    folds: int = 5
    only_folds: tuple[int, ...] = field(default=())
    tables_only: bool = False
    lobe_codes: CodeSystem | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Tables and figures wanted."""
        return wanted(self.only)

    @cached_property
    def cohort(self) -> Manifest:
        """The scans used."""
        return part_of(self.manifest, QUICK_SCANS, self.seed) if self.quick else self.manifest

    def config(self, experiment: Experiment | None = None, fold: int = 0) -> Config:
        """The configuration of the whole, or of one training."""
        changes = [*COMMON_SETTINGS, *self._quick_settings(), *self.overrides, f"seed={self.seed}"]
        if experiment is None:
            return load_config(self.preset, changes)
        changes += experiment.settings()
        if not METHODS[experiment.method].network and any(row.lobes is None for row in self.cohort.rows):
            changes.append(f"handcrafted.lobe_model={self.run_folder(Experiment(LOBE_METHOD), fold).path}")
        return load_config(self.preset, changes)

    def _quick_settings(self) -> tuple[str, ...]:
        if not self.quick:
            return ()
        return (*QUICK_SETTINGS, f"bag.size={min(QUICK_BAG, load_config(self.preset).bag.size)}")

    def run_folder(self, experiment: Experiment, fold: int) -> RunFolder:
        """Where one training lies."""
        return RunFolder(self.out / "runs" / experiment.key / f"fold{fold}")

    def experiments(self) -> tuple[Experiment, ...]:
        """The trainings that the tables and figures wanted rest on; handcrafted methods last."""
        found = experiments(self.names, self.config())
        handcrafted = [e for e in found if not METHODS[e.method].network]
        if handcrafted and any(row.lobes is None for row in self.cohort.rows):
            networks = [e for e in found if METHODS[e.method].network]
            return tuple(dict.fromkeys([*networks, Experiment(LOBE_METHOD), *handcrafted]))
        return found

    def splits(self) -> list[Split]:
        """The folds, saved for every method and every later call."""
        path = self.out / "folds.json"
        if path.is_file():
            return load_folds(path, self.cohort.rows, by="patient")
        count = QUICK_FOLDS if self.quick else self.folds
        splits = make_folds(self.cohort.rows, by="patient", seed=self.seed, folds=count)
        save_folds(splits, path, by="patient", seed=self.seed)
        return splits

    def fold_numbers(self, count: int) -> tuple[int, ...]:
        """The folds to run, of so many."""
        if self.only_folds:
            outside = [fold for fold in self.only_folds if fold >= count]
            if outside:
                raise M2UNetError("There is no such fold", found=outside, expected=f"0 to {count - 1}")
            return self.only_folds
        return (0,) if self.quick else tuple(range(count))


def part_of(manifest: Manifest, scans: int, seed: int) -> Manifest:
    """Whole patients, severe, non-severe and unknown in turn, until there are so many scans."""
    strata: dict[int, list[tuple[ManifestRow, ...]]] = {}
    patients = sorted(manifest.patients().items())
    for place in np.random.default_rng([seed, 0x51CE]).permutation(len(patients)):
        rows = patients[place][1]
        known = [row.severity for row in rows if row.severity is not None]
        strata.setdefault(max(known, default=-1), []).append(rows)
    chosen: list[ManifestRow] = []
    queues = [strata[key] for key in sorted(strata, reverse=True)]
    while len(chosen) < scans and any(queues):
        for queue in queues:
            if queue and len(chosen) < scans:
                chosen += queue.pop(0)
    return Manifest(manifest.path, tuple(sorted(chosen, key=lambda row: row.scan_id)))


@dataclass(frozen=True)
class Task:
    """One training and its test."""

    job: Reproduction
    experiment: Experiment
    fold: int
    split: Split

    def __call__(self) -> str | None:
        """Train and test, or find it done.

        Returns:
            Why it could not be done, else None.
        """
        job, run = self.job, self.job.run_folder(self.experiment, self.fold)
        wall, processor = time.monotonic(), time.process_time()
        done = run.summary.is_file()
        try:
            config = job.config(self.experiment, self.fold)
            store = Store(job.out / "store", job.cohort.rows)
            about, folder = job_data(job), run.path.parent
            method = CrossValidation(job.cohort, store, config, folder, trained_on=about, device=job.device)
            method.run_fold(self.fold, self.split)
        except TrainingInterruptedError:
            raise
        except M2UNetError as error:
            logger.warning("%s, fold %d: %s", self.experiment.key, self.fold, error)
            return str(error)
        if not done:
            spent = {"wall": time.monotonic() - wall, "processor": time.process_time() - processor}
            write_json(run.path / "seconds.json", {name: round(value, 1) for name, value in spent.items()})
        return None


@dataclass(frozen=True)
class Finished:
    """What a reproduction found so far.

    Attributes:
        outcomes: by key of an experiment, over the folds that are finished.
        folds: of how many the reproduction consists.
        failures: one line a training that failed.
    """

    outcomes: Mapping[str, Outcome]
    folds: int
    failures: tuple[str, ...] = ()


def run_experiments(job: Reproduction, progress: Progress | None = None) -> Iterator[Finished]:
    """Run what is missing, fold by fold; after each fold everything finished so far is yielded.

    Raises:
        TrainingInterruptedError: when asked to stop; a second call goes on from there.
        WorkerError: with several jobs, if their processes cannot start or one is killed.
    """
    shown: Progress = progress or NoProgress()
    if not job.experiments():  # Table I and Figure 2 rest on no training
        yield Finished({}, job.folds)
        return
    if job.tables_only:
        folds = len(job.splits())
        yield Finished(gather(job, folds), folds)
        return
    prepared_store(
        job.cohort, job.out / "store", job.config(), workers=job.jobs, progress=shown, lobe_codes=job.lobe_codes
    )
    splits = job.splits()
    failures: list[str] = []
    for fold in job.fold_numbers(len(splits)):
        tasks = [Task(job, experiment, fold, splits[fold]) for experiment in job.experiments()]
        networks = [task for task in tasks if METHODS[task.experiment.method].network]
        with shown.stage(f"fold {fold + 1}") as step:
            done = 0
            for part in (networks, tasks[len(networks) :]):  # handcrafted methods may need a network's lobes
                for task, error in _run(part, job.jobs):
                    done += 1
                    step(done, len(tasks), task.experiment.key)
                    failures += [f"{task.experiment.key}, fold {fold + 1}: {error}"] if error else []
        yield Finished(gather(job, len(splits)), len(splits), tuple(failures))


def _run(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, str | None]]:
    if jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, task()
        return
    pool = WorkerPool(jobs, _use_threads, (max(1, (os.cpu_count() or 1) // jobs),))
    try:
        futures = dict(zip(pool.submit(_call, tasks), tasks, strict=True))
        for future in as_completed(futures):
            yield futures[future], future.result()
        return
    except BrokenProcessPool:
        pass
    except BaseException:
        pool.terminate()  # a training saves its state first; only a terminal interrupts workers too
        raise
    finally:
        pool.close()
    raise WorkerError(
        f"A process that trains {describe_exit(pool.exit_code())}",
        mend="call again, with fewer --jobs if it was killed; what is finished is kept",
    )


def _call(task: Task) -> str | None:
    return task()


def _use_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def gather(job: Reproduction, folds: int) -> dict[str, Outcome]:
    """Every finished fold of every experiment, by the experiment's key."""
    found: dict[str, Outcome] = {}
    for experiment in job.experiments():
        runs = {fold: job.run_folder(experiment, fold) for fold in range(folds)}
        runs = {fold: run for fold, run in runs.items() if run.summary.is_file()}
        if runs:
            found[experiment.key] = _outcome(job, experiment, runs)
    return found


def _outcome(job: Reproduction, experiment: Experiment, runs: Mapping[int, RunFolder]) -> Outcome:
    figures, scans, seconds = {}, [], []
    for fold, run in runs.items():
        stored = read_json(run.summary)["figures"]["per_scan"]
        figures[fold] = {name: interval["estimate"] for name, interval in stored.items()}
        # a handcrafted method decides on its own scale, where one half is its rule
        scans += _tested(run.predictions, fold, "probability" if METHODS[experiment.method].network else "raw")
        spent = run.path / "seconds.json"
        seconds += [float(read_json(spent)["processor"])] if spent.is_file() else []
    size, full = _sizes(job.config(experiment)) if METHODS[experiment.method].network else (None, None)
    return Outcome(figures, scans, size, full, float(np.mean(seconds)) if seconds else None)


def _tested(path: Path, fold: int, column: str) -> list[ScanResult]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            ScanResult(
                scan_id=row["scan_id"],
                patient_id=row["patient_id"],
                fold=fold,
                severity=int(row["severity"]) if row["severity"] else None,
                probability=_number(row[column]),
                overlap={name: _number(row[name]) for name in OVERLAPS} if any(row[n] for n in OVERLAPS) else {},
            )
            for row in csv.DictReader(file)
        ]


def _number(text: str) -> float | None:
    return float(text) if text else None


def _sizes(config: Config) -> tuple[float, float]:
    """MiB of float32 weights, as configured and at the paper's size."""
    import torch

    from m2unet.config import ModelConfig
    from m2unet.models.registry import build_model
    from m2unet.models.table import count, mebibytes

    full = ModelConfig(name=config.model.name, position=config.model.position)
    found = []
    for settings in (config.model, full):
        with torch.random.fork_rng(devices=[]):
            found.append(mebibytes(count(build_model(settings))))
    return found[0], found[1]


def job_data(job: Reproduction) -> str:
    """The cohort in words: what it is, and its counts."""
    rows = job.cohort.rows
    severe = sum(row.severity == 1 for row in rows)
    masks = sum(row.lobes is not None for row in rows)
    patients = len(job.cohort.patients())
    counts = f"{len(rows)} scans of {patients} patients, {severe} scans severe, {masks} with lobe masks"
    what = job.data or (PHANTOMS if is_phantom(job.manifest) else f"the cohort of {job.manifest.path.name}")
    return f"{what}: {counts}"


PHANTOMS = "digital phantoms (engineering evidence, never clinical)"


def is_phantom(manifest: Manifest) -> bool:
    """Whether the cohort was made by ``m2unet phantom``, by the README it writes."""
    readme = manifest.path.parent / "README.txt"
    try:
        return readme.read_text(encoding="utf-8").startswith("Digital phantoms")
    except (OSError, UnicodeDecodeError):
        return False
