"""``m2unet reproduce``: the paper's tables and figures on a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m2unet.cli.common import Device, LobeCodes, Out, Overrides, Preset, code_system, say


def reproduce(
    cohort: Annotated[Path, typer.Option("--cohort", help="The cohort's manifest (CSV).")],
    out: Out,
    preset: Preset = "paper",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="table1 ... table7, figure2, figure5, figure6; may be repeated.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One fold of a part of the cohort, trained for a moment.")
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trainings at the same time, each a process.")] = 1,
    folds: Annotated[int, typer.Option("--folds", min=3, help="How many folds.")] = 5,
    fold: Annotated[list[int] | None, typer.Option("--fold", min=0, help="Only this fold; may be repeated.")] = None,
    tables_only: Annotated[
        bool, typer.Option("--tables-only", help="Train nothing: write tables and figures of what is finished.")
    ] = False,
    data: Annotated[str | None, typer.Option("--data", help="The cohort in words, for the tables.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")] = 0,
    overrides: Overrides = None,
    lobe_codes: LobeCodes = None,
    device: Device = "auto",
) -> None:
    """Train and compare every method of the paper; write Tables I-VII and Figures 2, 5, 6. Call again to go on."""
    from m2unet.cli.progress import TerminalProgress
    from m2unet.cohort.manifest import read_manifest
    from m2unet.errors import EXIT_SOME_FAILED
    from m2unet.training.distributed import choose_device
    from m2unet.workflows.reproduce import Finished, Reproduction, run_experiments
    from m2unet.workflows.reproduce_report import write_report

    job = Reproduction(
        manifest=read_manifest(cohort),
        out=out,
        preset=preset,
        overrides=tuple(overrides or ()),
        seed=seed,
        only=tuple(only or ()),
        quick=quick,
        jobs=jobs,
        device=str(choose_device(device)),
        data=data,
        folds=folds,
        only_folds=tuple(fold or ()),
        tables_only=tables_only,
        lobe_codes=None if lobe_codes is None else code_system(lobe_codes),
    )
    found = Finished({}, folds)
    for found in run_experiments(job, TerminalProgress()):
        page = write_report(job, found)
        say(f"{len(found.outcomes)} experiments so far: {page}")
    for failure in found.failures:
        say(f"failed: {failure}")
    say(f"Written to {out}: index.html, tables.md, table*.csv/.md/.tex, figure*.png/.svg, reproduction.json")
    if found.failures:
        raise typer.Exit(EXIT_SOME_FAILED)
