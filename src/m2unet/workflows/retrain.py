"""Train again with corrected masks, and, if asked, with the confident pixels of the proposals nobody corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from m2unet.cohort.folds import Split, hold_out
from m2unet.cohort.manifest import Manifest, ManifestRow, read_manifest
from m2unet.cohort.masks import read_lobes
from m2unet.config import Config
from m2unet.ct.read import read_raw
from m2unet.ct.volume import from_source
from m2unet.errors import ConfigError, M2UNetError, RunError
from m2unet.training.distributed import World
from m2unet.workflows.annotation import AnnotationFolder
from m2unet.workflows.finetune import STEPS, FineTuneJob, fine_tune
from m2unet.workflows.progress import Progress
from m2unet.workflows.run_folder import RunFolder
from m2unet.workflows.store import prepared_store
from m2unet.workflows.train import TrainJob, seeded_model, train_run

WHOLE_CHEST = "chest_unet"


@dataclass(frozen=True)
class RetrainOptions:
    """How to train again.

    Attributes:
        self_train: also learn from the confident pixels of proposals that nobody corrected; all other pixels of those
            scans are left out of the lobe loss. Never used for validation.
        validation: share of patients held out.
        resume: go on with an interrupted run.
        steps: of the whole-chest network, optimiser steps of twelve slices.
    """

    self_train: bool = False
    validation: float = 0.1
    resume: bool = False
    steps: int = STEPS


@dataclass(frozen=True)
class TrainingRows:
    """Which scans a retraining learns from.

    Attributes:
        rows: with the masks to use.
        split: their use.
        corrected: scans with a corrected mask.
        self_trained: scans with confident pixels alone.
        left_out: by scan id, the use it would have had and why it has none.
        unfit: scans whose confident pixels do not lie as lobes do, and why.
    """

    rows: tuple[ManifestRow, ...]
    split: Split
    corrected: tuple[str, ...]
    self_trained: tuple[str, ...]
    left_out: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)


def training_rows(folder: AnnotationFolder, config: Config, options: RetrainOptions) -> TrainingRows:
    """Gather the scans of a retraining.

    Raises:
        RunError: if there is neither a corrected mask nor self-training.
    """
    manifest = read_manifest(folder.manifest) if folder.manifest.is_file() else folder.read_manifest()
    corrected = tuple(row.scan_id for row in manifest.rows if folder.taken(row.scan_id).is_file())
    if not corrected and not options.self_train:
        raise RunError(
            "No corrected mask was taken yet",
            found=folder.path,
            mend="put masks into corrected/ and run `m2unet annotate take`, or use --self-train",
        )
    severity = "severity" in seeded_model(config).tasks
    confident = {
        row.scan_id
        for row in manifest.rows
        if options.self_train and row.lobes is None and folder.confident(row.scan_id).is_file()
    }
    unfit = {scan_id: why for scan_id in sorted(confident) if (why := _unfit(folder.confident(scan_id))) is not None}
    confident -= set(unfit)
    if not corrected and not confident:
        raise RunError(
            "No proposal is fit to learn from", found="; ".join(f"{k}: {why}" for k, why in unfit.items()) or None
        )
    used = [row for row in manifest.rows if severity or row.lobes is not None or row.scan_id in confident]
    split = hold_out(used, share=options.validation, seed=config.seed)
    rows = [_with_confident(row, folder, confident & set(split.train)) for row in used]
    names = {row.scan_id for row in used}
    left_out = {row.scan_id: ("train", "no lobe mask") for row in manifest.rows if row.scan_id not in names}
    if not severity:  # a scan held out for validation without a mask tells nothing of lobes
        kept = {row.scan_id for row in rows if row.lobes is not None}
        rows = [row for row in rows if row.scan_id in kept]
        left_out |= {scan: ("validation", "no lobe mask") for scan in split.validation if scan not in kept}
        split = Split(split.train, tuple(scan for scan in split.validation if scan in kept), ())
    self_trained = tuple(sorted(confident & set(split.train)))
    return TrainingRows(tuple(rows), split, corrected, self_trained, left_out, unfit)


def _unfit(mask: Path) -> str | None:
    """Why confident pixels cannot be learned from: unreadable, or lobes on the wrong side or in the wrong order."""
    try:
        raw = read_raw(mask)
        read_lobes(mask, from_source(raw.array, raw.spacing_mm, raw.origin_mm, raw.direction), undecided=True)
    except (M2UNetError, OSError) as error:
        return str(error)
    return None


def _with_confident(row: ManifestRow, folder: AnnotationFolder, confident: set[str]) -> ManifestRow:
    return replace(row, lobes=folder.confident(row.scan_id)) if row.scan_id in confident else row


def retrain(
    folder: AnnotationFolder,
    config: Config,
    out: Path,
    options: RetrainOptions | None = None,
    *,
    world: World | None = None,
    progress: Progress | None = None,
) -> tuple[RunFolder, TrainingRows]:
    """Train a new model on the proposals' manifest with corrected masks.

    The whole-chest network, which ships with the package and proposes unless told otherwise, goes on from the shipped
    weights (:mod:`m2unet.workflows.finetune`); every other network begins anew.

    Args:
        folder: of the proposals.
        config: of the run.
        out: its folder; prepared scans go to ``out/store``.
        options: how.
        world: the processes that train together.
        progress: where to show progress.

    Returns:
        The finished run, and what it learned from.

    Raises:
        RunError: there is neither a corrected mask nor self-training.
        ConfigError: the whole-chest network cannot be trained as asked.
    """
    options = options or RetrainOptions()
    if config.model.name == WHOLE_CHEST:
        return _fine_tuned(folder, config, out, options, world or World(), progress)
    used = training_rows(folder, config, options)
    cohort = Manifest(folder.manifest, used.rows)
    store = prepared_store(cohort, out / "store", config, world=world, progress=progress)
    job = TrainJob(store, used.split, config, out, _said(folder, used), options.resume, left_out=used.left_out)
    return train_run(job, world=world, progress=progress), used


def _fine_tuned(
    folder: AnnotationFolder,
    config: Config,
    out: Path,
    options: RetrainOptions,
    world: World,
    progress: Progress | None,
) -> tuple[RunFolder, TrainingRows]:
    mend = "choose a network of patches, for example with --preset demo"
    if options.self_train:
        raise ConfigError("The whole-chest network does not learn from confident pixels", found="self-train", mend=mend)
    if world.size > 1:
        raise ConfigError("The whole-chest network is trained by one process", found=world.size, expected=1, mend=mend)
    used = training_rows(folder, config, options)
    job = FineTuneJob(
        read_manifest(folder.manifest),
        out,
        steps=options.steps,
        seed=config.seed,
        validation=options.validation,
        resume=options.resume,
        device=str(world.device),
    )
    made = fine_tune(job, progress=progress)
    return made.run, replace(used, split=Split(made.train, made.validation, ()))


def _said(folder: AnnotationFolder, used: TrainingRows) -> str:
    before: Sequence[str] = [str(folder.read_index()["model"].get("trained_on") or "")]
    phantoms = "phantoms; " if "phantom" in before[0].lower() else ""
    self_trained = f" and {len(used.self_trained)} with confident pixels of proposals" if used.self_trained else ""
    return f"{phantoms}{len(used.corrected)} scans with corrected masks{self_trained}"
