"""``m2unet crossval``: five folds in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from m2unet.cli.common import Device, LobeCodes, Out, Overrides, Preset, Seed, code_system, say, settings


def crossval(
    manifest: Annotated[Path, typer.Argument(help="The cohort's manifest (CSV).")],
    out: Out,
    preset: Preset = "paper",
    overrides: Overrides = None,
    model: Annotated[str | None, typer.Option("--model", help="Which method.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1)] = None,
    seed: Seed = None,
    folds: Annotated[int, typer.Option("--folds", min=3, help="How many folds.")] = 5,
    fold: Annotated[list[int] | None, typer.Option("--fold", min=0, help="Only this fold; may be repeated.")] = None,
    by: Annotated[str, typer.Option("--by", help="Keep together: patient or scan.")] = "patient",
    store: Annotated[
        Path | None, typer.Option("--store", help="Folder of prepared scans [default: OUT/store].")
    ] = None,
    lobe_codes: LobeCodes = None,
    device: Device = "auto",
) -> None:
    """Cross-validate; finished folds are skipped, an interrupted one goes on."""
    from m2unet.cli.progress import TerminalProgress
    from m2unet.cohort.manifest import read_manifest
    from m2unet.config import load_config
    from m2unet.errors import ConfigError
    from m2unet.models.methods import method as named
    from m2unet.training.distributed import choose_device
    from m2unet.workflows.crossval import CrossValidation
    from m2unet.workflows.methods import method_store
    from m2unet.workflows.usable import check_usable, row_labels

    if by not in ("patient", "scan"):
        raise ConfigError("Folds are made by patient or by scan", found=by, expected="patient or scan")
    grouping: Literal["patient", "scan"] = "patient" if by == "patient" else "scan"
    changes = settings(overrides, seed=seed, epochs=epochs, method=model)
    config = load_config(preset, changes)
    cohort = read_manifest(manifest)
    codes = None if lobe_codes is None else code_system(lobe_codes)
    check_usable(row_labels(cohort.rows), named(config.model.name).tasks)  # preparing a cohort can take hours
    progress = TerminalProgress()
    prepared = method_store(cohort, store or out / "store", config, progress=progress, lobe_codes=codes)
    job = CrossValidation(
        cohort, prepared, config, out, grouping, f"the cohort of {manifest.name}", str(choose_device(device))
    )
    found = job.run(only=fold, folds=folds, progress=progress)
    for name, spread in found.items():
        say(f"{name:<12} {spread.cell()}")
    say(f"Written to {out}: summary.json, results.md, and a folder a fold.")
