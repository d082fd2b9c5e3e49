"""``m2unet evaluate``: a trained model on an independent cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m2unet.cli.common import Device, LobeCodes, Out, code_system, failure_code, say


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or a model folder.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest of scans with known severity or lobes.")],
    out: Out,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    lobe_codes: LobeCodes = None,
    device: Device = "auto",
) -> None:
    """Score every scan of a cohort into a CSV, and the figures over them with patient-clustered intervals."""
    from m2unet.cli.progress import TerminalProgress
    from m2unet.cohort.manifest import read_manifest
    from m2unet.training.distributed import choose_device
    from m2unet.workflows.appraisal import appraisal_table
    from m2unet.workflows.evaluate import evaluate_scans
    from m2unet.workflows.methods import load_method
    from m2unet.workflows.model_card import write_evaluation_card
    from m2unet.workflows.scoring import figures_table

    codes = code_system(lobe_codes or "auto")
    cohort = read_manifest(manifest)
    predictor = load_method(run, device=str(choose_device(device)))
    evaluation = evaluate_scans(
        predictor, cohort.rows, out, seed=seed, lobe_codes=codes, run=run, progress=TerminalProgress()
    )
    card = write_evaluation_card(run, cohort.rows, out)
    say(figures_table(evaluation.figures))
    say(appraisal_table(evaluation.appraisal))
    names = "predictions.csv (one row a scan), summary.json, results.md, confidence.png"
    say(f"Written to {out}: {names}" + (", MODEL_CARD.md" if card else ""))
    for score in evaluation.scores:
        if score.error is not None:
            typer.secho(f"  {score.scan_id}: {score.error}", fg=typer.colors.RED, err=True)
    failed = [score.error for score in evaluation.scores if score.error is not None]
    if failed:
        raise typer.Exit(failure_code(failed, len(evaluation.scores)))
