"""Fine-tune the whole-chest lobe network on a user's annotated scans, or train it on them alone to compare."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBE_CODES, CodeSystem
from m2unet.cohort.folds import Split, hold_out
from m2unet.cohort.manifest import Manifest, ManifestRow
from m2unet.cohort.masks import log_findings, read_lobes
from m2unet.cohort.store import content_hash
from m2unet.config import Config, load_config
from m2unet.ct.identity import identify_scan
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.errors import ConfigError, M2UNetError, RunError
from m2unet.files import write_json
from m2unet.inference.atlas_file import save_atlas
from m2unet.inference.chest_grid import PIXEL_MM, ChestGrid, to_chest_grid
from m2unet.inference.predictor import Predictor
from m2unet.inference.whole_chest import score_chest
from m2unet.models.chest_unet import ChestUNet
from m2unet.models.weights import save_model
from m2unet.phantom.randomised.atlas import build_atlas
from m2unet.phantom.randomised.pool import Chest, ChestPool, has_chest, write_chest
from m2unet.phantom.randomised.samples import Knobs, Look
from m2unet.phantom.randomised.scanner import ScannerKnobs
from m2unet.phantom.randomised.space import SpaceKnobs
from m2unet.training.distributed import choose_device
from m2unet.training.invented import Drawing, InventedTraining, train_invented
from m2unet.workflows.case_folder import read_json_file
from m2unet.workflows.leakage import KnownScan, compare, write_training
from m2unet.workflows.progress import NoProgress, Progress
from m2unet.workflows.run_folder import RunFolder, read_json, versions
from m2unet.workflows.synthetic import CURVE_FILE, STATE_FILE, curve_file
from m2unet.workflows.train import split_document
from m2unet.workflows.usable import UsableScans, record_left_out

logger = logging.getLogger(__name__)

STEPS = 300
FINE_TUNING = InventedTraining(
    steps=STEPS, lr=1.5e-4, warmup=20, decay_from=0.3, average=0.98, save_every=50, validate_every=100
)
FROM_SCRATCH = InventedTraining(steps=STEPS, warmup=50, decay_from=0.5, average=0.98, save_every=50, validate_every=100)
"""What trains the same network from random weights: the learning rate of the training on invented images."""

REAL_SLABS = Knobs(
    space=SpaceKnobs(thick_share=0.0, zoom=(0.9, 1.12), stretch=0.03, bend_mm=3.0, beyond_share=0.1),
    look=Look(
        tissues=None,
        disease=None,
        scanner=ScannerKnobs(
            table_share=0.0,
            metal_share=0.0,
            motion_share=0.0,
            blur_share=0.3,
            blur_mm=(0.3, 1.5),
            sharp_share=0.2,
            sharp=(0.2, 0.8),
            noise_hu=(1.0, 40.0),
            streak_share=0.05,
            ring_share=0.0,
            cupping_share=0.1,
            circle_share=0.1,
            cut_share=0.05,
        ),
    ),
    calm_share=0.0,
)
"""Slabs of real scans keep their tissues and disease; place, bend, noise and sharpness still vary."""


@dataclass(frozen=True)
class FineTuneJob:
    """A fine-tuning.

    Attributes:
        manifest: the cohort; scans without a lobe mask are left out.
        out: run folder; an interrupted run there is taken up.
        init: ``synthetic`` begins with the weights that ship with the package, ``none`` with random ones.
        steps: optimiser steps of twelve slices.
        seed: of the split and the training.
        validation: share of patients held out for the curve; with fewer than five patients none is.
        lobe_codes: whose codes the masks use.
        resume: go on with an interrupted run.
        device: auto, cpu or cuda.
    """

    manifest: Manifest
    out: Path
    init: Literal["synthetic", "none"] = "synthetic"
    steps: int = STEPS
    seed: int = 0
    validation: float = 0.1
    lobe_codes: CodeSystem = "auto"
    resume: bool = False
    device: str = "auto"

    def settings(self) -> InventedTraining:
        """How the network is trained."""
        base = FINE_TUNING if self.init == "synthetic" else FROM_SCRATCH
        warmup = min(base.warmup, self.steps // 6)  # a short run must not be over before it is warm
        values: dict[str, Any] = {**asdict(base), "steps": self.steps, "warmup": warmup, "seed": self.seed}
        return InventedTraining(**values)


@dataclass(frozen=True)
class FineTuned:
    """What a fine-tuning made.

    Attributes:
        run: its folder.
        train, validation: ids of the scans used.
        skipped: scan ids that could not be used, and why.
    """

    run: RunFolder
    train: tuple[str, ...]
    validation: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)


def fine_tune(job: FineTuneJob, *, progress: Progress | None = None) -> FineTuned:
    """Train the whole-chest network on annotated scans.

    Raises:
        RunError: no scan of the manifest has a usable lobe mask, or the folder holds another run.
    """
    shown: Progress = progress or NoProgress()
    rows = [row for row in job.manifest.rows if row.lobes is not None]
    if not rows:
        raise RunError("No scan of the manifest has a lobe mask", found=job.manifest.path.name, expected="at least one")
    shipped = Predictor.load()
    if not isinstance(shipped.network, ChestUNet):
        raise ConfigError("Only the whole-chest network is fine-tuned so", found=type(shipped.network).__name__)
    config = load_config("synthetic", [f"seed={job.seed}"])
    share = job.validation if len({row.patient_id for row in rows}) >= 5 else 0.0
    split = hold_out(rows, share=share, seed=job.seed)
    run = RunFolder(job.out)
    run.start(config, {**split_document(split), "init": job.init, "steps": job.steps}, resume=job.resume)
    with shown.stage("reading scans") as step:
        written, skipped = _write_chests(job, rows, shipped, step)
    places = {scan_id: number for scan_id, (number, _) in written.items()}
    train, held = (tuple(s for s in part if s in places) for part in (split.train, split.validation))
    if not train:
        raise RunError("No annotated scan could be used", found="; ".join(f"{k}: {v}" for k, v in skipped.items()))
    contents = {scan_id: content for scan_id, (_, content) in written.items()}
    _record_scans(job, run, Split(train, held, ()), contents, skipped)
    if not run.finished:
        _train(job, run, shipped, _Pools(job.out / "scans", places, train, held), shown)
    return FineTuned(run, train, held, skipped)


def _record_scans(
    job: FineTuneJob, run: RunFolder, split: Split, contents: Mapping[str, str], skipped: Mapping[str, str]
) -> None:
    """Name the scans that are trained and validated on, and those left out."""
    patients = {row.scan_id: row.patient_id for row in job.manifest.rows}
    sides = (("train", split.train), ("validation", split.validation))
    seen = [KnownScan(scan_id, patients[scan_id], contents[scan_id], use) for use, part in sides for scan_id in part]
    overlap = compare(seen)
    if overlap.found:
        logger.warning("the held-out scans are not independent of the training scans: %s", overlap.said)
    write_training(seen, run.path)
    used = {*split.train, *split.validation}
    left_out = {row.scan_id: ("train", "no lobe mask") for row in job.manifest.rows if row.scan_id not in used}
    left_out |= dict.fromkeys(skipped, ("train", "it cannot be used"))
    record_left_out(UsableScans(split, left_out), run.path)


@dataclass(frozen=True)
class _Pools:
    folder: Path
    places: dict[str, int]
    train: tuple[str, ...]
    held: tuple[str, ...]

    def pool(self, scan_ids: tuple[str, ...]) -> ChestPool:
        return _ScanPool(self.folder, [self.places[scan_id] for scan_id in scan_ids])


class _ScanPool(ChestPool):
    """Some chests of a pool, in any order."""

    def __init__(self, folder: Path, numbers: list[int]) -> None:
        super().__init__(folder, 0)
        self.numbers, self.count = numbers, len(numbers)

    def __getitem__(self, index: int) -> Chest:
        return ChestPool(self.folder, 1, self.numbers[index])[0]


def _train(job: FineTuneJob, run: RunFolder, shipped: Predictor, pools: _Pools, progress: Progress) -> None:
    assert isinstance(shipped.network, ChestUNet)
    config: Config = load_config(run.config_file)
    settings, started = job.settings(), time.perf_counter()
    chests, held = pools.pool(pools.train), pools.pool(pools.held) if pools.held else None
    drawing = Drawing(chests, held, REAL_SLABS, device=choose_device(job.device))
    with progress.stage("training") as step, curve_file(job.out / CURVE_FILE) as write:

        def record(figures: Any) -> None:
            write(figures)
            step(figures.step, settings.steps, f"loss {figures.loss:.3f}")

        model = train_invented(
            drawing,
            config,
            settings,
            job.out / STATE_FILE,
            record=record,
            start=shipped.network.state_dict() if job.init == "synthetic" else None,
        )
    start = "the shipped weights (phantoms alone)" if job.init == "synthetic" else "random weights"
    extra = {
        "trained_on": f"{len(chests)} annotated scans of {job.manifest.path.name}, from {start}",
        "training": {"scans": len(chests), "held_out_scans": len(pools.held), **asdict(settings)},
        "initial_weights_sha256": shipped.identity.weights_sha256 if job.init == "synthetic" else None,
        "seconds": round(time.perf_counter() - started, 1),
        "versions": versions(),
    }
    if job.init == "synthetic" and shipped.atlas is not None:
        save_atlas(shipped.atlas, _made(run.model))
    else:
        save_atlas(build_atlas(chests[number] for number in range(len(chests))), _made(run.model))
    save_model(model, config, run.model, extra)
    (job.out / STATE_FILE).unlink(missing_ok=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_chests(
    job: FineTuneJob, rows: list[ManifestRow], shipped: Predictor, step: Any
) -> tuple[dict[str, tuple[int, str]], dict[str, str]]:
    """Bring every scan to the working grid once: number and hash of its voxels, and why others cannot be used."""
    folder = _made(job.out / "scans")
    places: dict[str, tuple[int, str]] = {}
    skipped: dict[str, str] = {}
    for number, row in enumerate(sorted(rows, key=lambda row: row.scan_id)):
        note, digest = folder / f"{number:04d}-content.json", identify_scan(row.image).digest
        if (read_json_file(note) or {}).get("scan_digest", digest) != digest:
            raise RunError("The run was made with other images under the same names", found=row.scan_id)
        try:
            if not (note.is_file() and has_chest(folder, number)):
                volume = read_scan(row.image, accept=row.accept)
                write_json(note, {"scan_digest": digest, "content_sha256": content_hash(volume.array)})
                write_chest(folder, number, annotated_chest(row, shipped, job.lobe_codes, volume))
            places[row.scan_id] = number, str(read_json(note)["content_sha256"])
        except M2UNetError as error:
            logger.warning("%s is left out: %s", row.scan_id, error)
            skipped[row.scan_id] = str(error)
        step(number + 1, len(rows))
    return places, skipped


def annotated_chest(
    row: ManifestRow, placing: Predictor, codes: CodeSystem = "auto", volume: Volume | None = None
) -> Chest:
    """A scan and its lobe mask on the whole-chest network's grid.

    Args:
        row: with a mask.
        placing: a whole-chest network that says where the slices lie if the scan cuts the lungs off.
        codes: whose codes the mask uses.
        volume: the scan, if it is read already.

    Raises:
        ScanError: the scan or its mask cannot be read, or the mask shows no lobe.
    """
    volume = read_scan(row.image, accept=row.accept) if volume is None else volume
    assert row.lobes is not None and isinstance(placing.network, ChestUNet)
    read = read_lobes(row.lobes, volume, codes, accept=row.accept)
    log_findings(row.scan_id, read)
    mask = read.array
    grid = to_chest_grid(volume)
    lobes = lobes_on_grid(mask, grid)
    inside = np.flatnonzero(np.isin(lobes, LOBE_CODES).any(axis=(1, 2)))
    if not len(inside):
        raise RunError("The lobe mask shows no lobe", found=row.lobes.name)
    base, apex = float(inside[0]), float(inside[-1])
    if inside[0] == 0 or inside[-1] == len(lobes) - 1:
        base, apex = _placed(placing, volume, (base, apex))
    flat = np.zeros_like(lobes)
    hu = np.rint(np.clip(grid.hu, -3024, 8000)).astype(np.int16)
    return Chest(hu, np.stack([lobes, flat, flat]), base, apex, grid.step_mm)


def lobes_on_grid(mask: NDArray[np.uint8], grid: ChestGrid) -> NDArray[np.uint8]:
    """The mask's value at the middle of every voxel of the working grid: ``[z, y, x]`` as ``grid.hu``."""
    y0, _, x0, _ = grid.window
    starts, steps = (0, y0, x0), (grid.step_mm, PIXEL_MM, PIXEL_MM)
    at = [
        np.minimum((start + (np.arange(count) + 0.5) * step / mm).astype(int), size - 1)
        for start, step, count, mm, size in zip(starts, steps, grid.hu.shape, grid.spacing_mm, mask.shape, strict=True)
    ]
    return mask[np.ix_(*at)]


def _placed(placing: Predictor, volume: Volume, seen: tuple[float, float]) -> tuple[float, float]:
    """First and last slice of the lungs, beyond the scan where it cuts them off, as the network places its slices."""
    assert isinstance(placing.network, ChestUNet)
    found = score_chest(placing.network, volume, placing.config, device=placing.device)
    if found.height is None or len(found.height.heights) < 2:
        return seen
    heights = found.height.heights
    rate = float(heights[-1] - heights[0]) / (len(heights) - 1)
    if rate <= 0:
        return seen
    first = (-1 - float(heights[0])) / rate
    return min(first, seen[0]), max(first + 2 / rate, seen[1])
