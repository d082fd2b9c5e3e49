"""``m2unet synthetic``: train the lobe network that ships with the package, on invented images alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m2unet.cli.common import Out, say


def synthetic(
    out: Out,
    chests: Annotated[int, typer.Option("--chests", min=1, help="Phantom chests to train on.")] = 150,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 6000,
    lr: Annotated[
        float, typer.Option("--lr", min=0.0, help="Highest learning rate; less to go on from --init.")
    ] = 2e-3,
    decay_from: Annotated[
        float, typer.Option("--decay-from", min=0.0, max=1.0, help="Share of the steps after which the rate falls.")
    ] = 0.65,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")] = 0,
    pool: Annotated[
        Path | None, typer.Option("--pool", help="Folder of drawn chests to share [default: OUT/pool].")
    ] = None,
    slabs: Annotated[int, typer.Option("--slabs", min=1, help="Slabs of four slices a step.")] = 3,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Processes that draw images; with 0 the training does it itself.")
    ] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    init: Annotated[
        Path | None, typer.Option("--init", help="Folder of a model to begin with [default: random weights].")
    ] = None,
) -> None:
    """Train the lobe network without any patient's data. Called again, also with more steps, a run goes on."""
    from m2unet.cli.progress import TerminalProgress
    from m2unet.training.invented import InventedTraining
    from m2unet.workflows.synthetic import SyntheticJob, train_synthetic

    settings = InventedTraining(steps=steps, lr=lr, slabs=slabs, decay_from=decay_from, seed=seed)
    job = SyntheticJob(out, chests=chests, settings=settings, pool=pool, init=init, workers=workers, device=device)
    model = train_synthetic(job, progress=TerminalProgress())
    say(f"The model is in {model}. Next: m2unet predict SCAN --model {out} --out DIR")
