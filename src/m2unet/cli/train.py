"""``m2unet train``: one model on a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m2unet.cli.common import Device, LobeCodes, Out, Overrides, Preset, Seed, code_system, refuse_beside, say, settings


def train(
    manifest: Annotated[Path, typer.Argument(help="The cohort's manifest (CSV).")],
    out: Out,
    preset: Preset = "paper",
    overrides: Overrides = None,
    model: Annotated[str | None, typer.Option("--model", help="Which method, e.g. m2unet, gated_mil, tang.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1)] = None,
    seed: Seed = None,
    folds: Annotated[Path | None, typer.Option("--folds", help="A saved folds.json to take the split from.")] = None,
    fold: Annotated[int, typer.Option("--fold", min=0, help="Which of those folds.")] = 0,
    validation: Annotated[
        float, typer.Option("--validation", min=0.0, max=0.9, help="Share of patients held out.")
    ] = 0.1,
    store: Annotated[
        Path | None, typer.Option("--store", help="Folder of prepared scans [default: OUT/store].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    lobe_codes: LobeCodes = None,
    device: Device = "auto",
    init: Annotated[
        str | None,
        typer.Option("--init", help="synthetic: fine-tune the lobe model shipped with m2unet; none: from scratch."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="With --init: steps of twelve slices.")] = 300,
) -> None:
    """Train a model on the scans of a manifest; Ctrl-C saves, --resume goes on."""
    if init is not None:
        clashing = {"--preset": preset != "paper", "--set": overrides, "--model": model, "--epochs": epochs}
        refuse_beside("--init", {**clashing, "--folds": folds, "--store": store})
        _fine_tune(
            manifest,
            out,
            init,
            steps,
            seed=seed,
            validation=validation,
            resume=resume,
            device=device,
            lobe_codes=lobe_codes,
        )
        return
    from m2unet.cli.progress import TerminalProgress
    from m2unet.cohort.folds import Split, hold_out, load_folds
    from m2unet.cohort.manifest import read_manifest
    from m2unet.config import load_config
    from m2unet.errors import ConfigError
    from m2unet.models.methods import method as named
    from m2unet.training.distributed import joined_world
    from m2unet.workflows.methods import method_store, train_method
    from m2unet.workflows.train import TrainJob
    from m2unet.workflows.usable import check_usable, fold_label, row_labels, usable_scans

    changes = settings(overrides, seed=seed, epochs=epochs, method=model)
    config = load_config(preset, changes)
    cohort = read_manifest(manifest)
    codes = None if lobe_codes is None else code_system(lobe_codes)
    tasks = named(config.model.name).tasks
    check_usable(row_labels(cohort.rows), tasks)  # preparing a cohort can take hours
    if folds is None:
        split: Split = hold_out(cohort.rows, share=validation, seed=config.seed, label=fold_label(tasks))
    else:
        splits = load_folds(folds)
        if fold >= len(splits):
            raise ConfigError("There is no such fold", found=fold, expected=f"0 to {len(splits) - 1}")
        split = splits[fold]
    progress = TerminalProgress()
    with joined_world(device) as world:
        prepared = method_store(
            cohort, store or out / "store", config, world=world, progress=progress, lobe_codes=codes
        )
        job = TrainJob(prepared, split, config, out, f"the cohort of {manifest.name}", resume)
        run = train_method(job, world=world, progress=progress)
        if world.main:
            usable = usable_scans(prepared, split, tasks)
            for line in usable.lines():
                say(line)
            say(f"Trained on {len(usable.split.train)} scans. The model is in {run.model}.")
            say(f"Next: m2unet evaluate {out} OTHER_MANIFEST, or m2unet predict SCAN --model {out} --out DIR")


def _fine_tune(
    manifest: Path,
    out: Path,
    init: str,
    steps: int,
    *,
    seed: int | None,
    validation: float,
    resume: bool,
    device: str,
    lobe_codes: str | None,
) -> None:
    from m2unet.cli.progress import TerminalProgress
    from m2unet.cohort.manifest import read_manifest
    from m2unet.errors import EXIT_SOME_FAILED, ConfigError
    from m2unet.workflows.finetune import FineTuneJob, fine_tune

    if init not in ("synthetic", "none"):
        raise ConfigError("There are no such weights to begin with", found=init, expected="synthetic or none")
    job = FineTuneJob(
        read_manifest(manifest),
        out,
        init="synthetic" if init == "synthetic" else "none",
        steps=steps,
        seed=seed or 0,
        validation=validation,
        lobe_codes=code_system(lobe_codes or "auto"),
        resume=resume,
        device=device,
    )
    made = fine_tune(job, progress=TerminalProgress())
    say(f"Trained on {len(made.train)} annotated scans. The model is in {made.run.model}.")
    for scan_id, why in made.skipped.items():
        say(f"Left out: {scan_id}: {why}")
    say(f"Next: m2unet predict SCAN --model {out} --out DIR")
    if made.skipped:
        raise typer.Exit(EXIT_SOME_FAILED)
