"""``m2unet annotate``: propose lobe masks, take corrected ones back, train again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m2unet.cli.common import (
    HELP_MARKUP,
    Device,
    LobeCodes,
    Out,
    Overrides,
    Seed,
    code_system,
    failure_code,
    say,
    settings,
)

annotate = typer.Typer(
    name="annotate",
    help="Help with drawing lobes: propose masks, take corrected ones, train again.",
    no_args_is_help=True,
    rich_markup_mode=HELP_MARKUP,
)

Folder = Annotated[Path, typer.Argument(help="The folder that `annotate propose` made.")]


@annotate.command()
def propose(
    manifest: Annotated[Path, typer.Argument(help="The cohort's manifest (CSV).")],
    out: Out,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", help="A run folder whose model segments lobes [default: the lobe model shipped with m2unet]."
        ),
    ] = None,
    confident_from: Annotated[
        float, typer.Option("--confident-from", min=0.0, max=1.0, help="Probability of a confident pixel.")
    ] = 0.9,
    every: Annotated[bool, typer.Option("--every", help="Propose for scans with a mask, too.")] = False,
    device: Device = "auto",
) -> None:
    """Propose lobe masks for the scans without one, ranked by what to correct first."""
    from m2unet.cli.progress import TerminalProgress
    from m2unet.cohort.manifest import read_manifest
    from m2unet.training.distributed import choose_device
    from m2unet.workflows.annotation import ProposeOptions, propose_masks

    ranked = propose_masks(
        read_manifest(manifest),
        model,
        out,
        ProposeOptions(confident_from, every),
        device=str(choose_device(device)),
        progress=TerminalProgress(),
    )
    for rank, one in enumerate(ranked[:10], 1):
        said = f"failed: {one.error}" if one.doubt is None else f"doubt {one.doubt:.3f}"
        say(f"{rank}. {one.scan_id}: {said}")
    failed = [one.error or "" for one in ranked if one.doubt is None]
    made = len(ranked) - len(failed)
    say(f"{made} of {len(ranked)} scans have a proposal; the whole ranking is in {out}/ranking.csv.")
    say(f"Next: correct masks, save them to {out}/corrected, then m2unet annotate take {out}. Research use only.")
    if failed:
        raise typer.Exit(failure_code(failed, len(ranked)))


@annotate.command()
def take(
    folder: Folder,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept", help="A fault to live with: missing, sides, order, volume, islands, air, outside or mismatch."
        ),
    ] = None,
    lobe_codes: LobeCodes = None,
) -> None:
    """Check the masks in corrected/ and take those without faults; every fault is listed."""
    from m2unet.cli.progress import TerminalProgress
    from m2unet.errors import EXIT_BAD_INPUT, EXIT_SOME_FAILED
    from m2unet.workflows.annotation import AnnotationFolder
    from m2unet.workflows.corrections import take_corrections

    found = take_corrections(
        AnnotationFolder(folder), accept or (), codes=code_system(lobe_codes or "auto"), progress=TerminalProgress()
    )
    for one in found:
        say(f"{one.file}: {'taken' if one.usable else 'not taken'}")
        for line in one.lines():
            say(f"  {line}")
    taken = sum(one.usable for one in found)
    say(f"{taken} of {len(found)} corrected masks taken into {folder}/manifest.csv.")
    if taken < len(found):
        raise typer.Exit(EXIT_SOME_FAILED if taken else EXIT_BAD_INPUT)
    say(f"Next: m2unet annotate retrain {folder} --out RUN")


@annotate.command()
def retrain(
    folder: Folder,
    out: Out,
    self_train: Annotated[
        bool, typer.Option("--self-train", help="Learn from confident pixels of uncorrected proposals, too.")
    ] = False,
    preset: Annotated[
        str | None, typer.Option("--preset", help="A preset or YAML file [default: the proposing model's].")
    ] = None,
    overrides: Overrides = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1)] = None,
    seed: Seed = None,
    validation: Annotated[
        float, typer.Option("--validation", min=0.0, max=0.9, help="Share of patients held out.")
    ] = 0.1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Steps of twelve slices, where the shipped lobe model learns on.")
    ] = 300,
    device: Device = "auto",
) -> None:
    """Train a new model with the corrected masks; Ctrl-C saves, --resume goes on."""
    from m2unet.cli.progress import TerminalProgress
    from m2unet.config import load_config
    from m2unet.errors import ConfigError
    from m2unet.training.distributed import joined_world
    from m2unet.workflows import retrain as work
    from m2unet.workflows.annotation import AnnotationFolder

    proposals = AnnotationFolder(folder)
    proposals.read_index()
    config = load_config(preset or proposals.config, settings(overrides, seed=seed, epochs=epochs))
    if config.model.name == work.WHOLE_CHEST and (overrides or epochs):
        raise ConfigError(
            "The shipped lobe model learns on with settings of its own",
            found="--set" if overrides else "--epochs",
            mend="leave it out, or choose a network of patches with --preset",
        )
    options = work.RetrainOptions(self_train, validation, resume, steps)
    with joined_world(device) as world:
        run, used = work.retrain(proposals, config, out, options, world=world, progress=TerminalProgress())
        if world.main:
            say(
                f"Trained on {len(used.split.train)} scans, {len(used.corrected)} of the cohort with corrected masks, "
                f"{len(used.self_trained)} with confident pixels alone. The model is in {run.model}."
            )
            for scan_id, why in used.unfit.items():
                say(f"left out: {scan_id}: {why}")
