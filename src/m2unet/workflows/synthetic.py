"""Train the whole-chest lobe network on invented images: draw chests, train, write the model and its curve."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from m2unet.config import Config, load_config
from m2unet.errors import ConfigError
from m2unet.files import write_json
from m2unet.inference.atlas_file import save_atlas
from m2unet.models.weights import CARD_FILE, StoredWeights, read_weights, save_model
from m2unet.phantom.randomised.anatomy import AnatomyKnobs
from m2unet.phantom.randomised.atlas import build_atlas
from m2unet.phantom.randomised.pool import ChestPool, build_pool
from m2unet.phantom.randomised.samples import Knobs
from m2unet.training.distributed import choose_device, device_name
from m2unet.training.invented import Drawing, InventedTraining, StepRecord, train_invented
from m2unet.workflows.leakage import TRAINING_FILE, read_training, write_training
from m2unet.workflows.progress import NoProgress, Progress
from m2unet.workflows.run_folder import RunFolder, read_json, versions

logger = logging.getLogger(__name__)

TRAINED_ON = "invented chest images alone; no patient's data"
CURVE_FILE = "curve.csv"
STATE_FILE = "state.pt"


@dataclass(frozen=True)
class SyntheticJob:
    """A training on invented images.

    Attributes:
        out: run folder; an interrupted run there is taken up.
        chests: phantom chests to train on.
        held_out: further chests for the validation figures.
        settings: of the training; ``settings.seed`` decides all chance.
        config: the model's; the ``synthetic`` preset if None.
        pool: folder of rendered chests, which several runs may share; ``out/pool`` if None.
        knobs: of the invented images.
        anatomy: of the chests.
        init: folder of a model to begin with, see :meth:`m2unet.models.chest_unet.ChestUNet.begin_with`; None draws
            the weights from the seed.
        workers: processes that draw chests and images; with 0 the training does it itself.
        device: auto, cpu or cuda.
    """

    out: Path
    chests: int = 150
    held_out: int = 16
    settings: InventedTraining = field(default_factory=InventedTraining)
    config: Config | None = None
    pool: Path | None = None
    knobs: Knobs | None = None
    anatomy: AnatomyKnobs | None = None
    init: Path | None = None
    workers: int = 0
    device: str = "auto"


def train_synthetic(job: SyntheticJob, *, progress: Progress | None = None) -> Path:
    """Train, or go on training; returns the model's folder.

    The state stays in the run's folder: called again with more steps, the run goes on from there.

    Raises:
        ConfigError: the configured network is not the whole-chest one.
        ConfigError: there is no such device.
        RunError: the pool's folder holds another pool.
        ModelError: the model to begin with cannot be read.
    """
    shown = progress or NoProgress()
    first = None if job.init is None else read_weights(job.init)
    config = job.config or load_config("synthetic", [f"seed={job.settings.seed}"])
    if config.model.name != "chest_unet":
        raise ConfigError("Only the whole-chest network is trained so", found=config.model.name, expected="chest_unet")
    folder = job.pool or job.out / "pool"
    with shown.stage("drawing chests") as step:
        total = job.chests + job.held_out
        build_pool(
            folder,
            total,
            job.settings.seed + 1,
            job.anatomy,
            workers=job.workers,
            done=lambda number: step(number, total),
        )
    chests = ChestPool(folder, job.chests)
    held_out = ChestPool(folder, job.held_out, job.chests)
    run = RunFolder(job.out)
    started = time.perf_counter()
    with shown.stage("training") as step, curve_file(job.out / CURVE_FILE) as write:

        def record(figures: StepRecord) -> None:
            write(figures)
            step(figures.step, job.settings.steps, f"loss {figures.loss:.3f}")

        model = train_invented(
            Drawing(chests, held_out, job.knobs, job.workers, choose_device(job.device)),
            config,
            job.settings,
            job.out / STATE_FILE,
            record=record,
            start=None if first is None else first.tensors,
        )
    _record_seen(job, run)
    extra = _card(job, first, read_curve(job.out / CURVE_FILE))
    save_model(model, config, run.model, extra)
    save_atlas(build_atlas(chests[number] for number in range(len(chests))), run.model)
    write_json(job.out / "run.json", {**extra, "seconds_of_this_call": round(time.perf_counter() - started, 1)})
    return run.model


def _record_seen(job: SyntheticJob, run: RunFolder) -> None:
    """Name the patients' scans that the network has seen: those of the model it began with, if any."""
    seen = [] if job.init is None else read_training(job.init)
    if seen is None and _trained_on(job) != TRAINED_ON:
        logger.warning("there is no %s that names the scans which the model to begin with has seen", TRAINING_FILE)
        return
    write_training(seen or [], run.path)


def _trained_on(job: SyntheticJob) -> str:
    """What the card says: no patient's data only where the model to begin with has seen none either."""
    before = TRAINED_ON if job.init is None else read_json(job.init / CARD_FILE).get("trained_on")
    return TRAINED_ON if before == TRAINED_ON else f"invented chest images, after {before or 'training not told'}"


def _card(job: SyntheticJob, first: StoredWeights | None, curve: list[dict[str, Any]]) -> dict[str, Any]:
    last = curve[-1] if curve else {}
    return {
        "trained_on": _trained_on(job),
        "initial_weights_sha256": first and first.sha256,
        "training": {
            "chests": job.chests,
            "held_out_chests": job.held_out,
            "calm_share": (job.knobs or Knobs()).calm_share,
            "fissure_spread": (job.anatomy or AnatomyKnobs()).fissure,
            "device": device_name(choose_device(job.device)),
            **asdict(job.settings),
            "seconds_of_steps": round(sum(row["seconds"] for row in curve), 1),
        },
        "validation": {name: last[name] for name in last if name.startswith("val_")},
        "versions": versions(),
    }


@contextmanager
def curve_file(path: Path) -> Iterator[Any]:
    """A function that adds a step to the curve; steps taken again after an interruption replace their first record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f.name for f in fields(StepRecord)]
    fresh = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        if fresh:
            writer.writeheader()

        def write(figures: StepRecord) -> None:
            writer.writerow({k: "" if v is None else f"{v:.6g}" for k, v in asdict(figures).items()})
            stream.flush()

        yield write


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The curve, one row a step, the latest record of each; figures that were not taken are None."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = {
            int(row["step"]): {k: (float(v) if v else None) for k, v in row.items()} for row in csv.DictReader(stream)
        }
    return [rows[step] for step in sorted(rows)]
