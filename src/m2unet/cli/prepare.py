"""``m2unet prepare``: bring the scans of a manifest into a store."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2unet.anatomy import CODE_MAPS, CodeSystem

if TYPE_CHECKING:
    from m2unet.cohort.manifest import Manifest
    from m2unet.cohort.prepare import PrepareReport
    from m2unet.config import PrepareConfig

logger = logging.getLogger(__name__)


def prepare(
    manifest: Annotated[Path, typer.Argument(help="CSV with one row a scan: scan_id, patient_id, image, ...")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the store; made if missing.")],
    preset: Annotated[str, typer.Option("--preset", help="Preset or YAML file that says how to prepare.")] = "paper",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Override, e.g. prepare.body_threshold_hu=-500; may repeat.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    lobe_codes: Annotated[
        str, typer.Option("--lobe-codes", help=f"Whose codes the lobe masks use: {', '.join(CODE_MAPS)}.")
    ] = "m2unet",
    redo: Annotated[bool, typer.Option("--redo", help="Prepare finished scans again.")] = False,
) -> None:
    """Check a manifest, crop its scans to the body and store them, skipping what is finished.

    Exit code 0: all scans are in the store; 1: some failed; 2: the manifest or the use is wrong.
    """
    from m2unet.cohort.manifest import read_manifest
    from m2unet.config import load_config

    codes = _codes(lobe_codes)
    config = load_config(preset, assignments or ()).prepare
    cohort = read_manifest(manifest)
    for warning in cohort.warnings:
        logger.warning("%s: %s", manifest.name, warning)
    report = _with_progress(cohort, out, config, workers=workers, codes=codes, redo=redo)
    _summarise(report, out)
    raise typer.Exit(report.exit_code)


def _codes(name: str) -> CodeSystem:
    for codes in CODE_MAPS:
        if codes == name:
            return codes
    raise typer.BadParameter(f"{name!r} is not one of {', '.join(CODE_MAPS)}", param_hint="--lobe-codes")


def _with_progress(
    cohort: Manifest, out: Path, config: PrepareConfig, *, workers: int, codes: CodeSystem, redo: bool
) -> PrepareReport:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from m2unet.cohort.prepare import ScanOutcome, prepare_cohort

    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(cohort))

        def progress(outcome: ScanOutcome, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=outcome.scan_id)
            for finding in outcome.warnings:
                logger.warning("%s: %s: %s", outcome.scan_id, finding.code, finding.found)

        return prepare_cohort(cohort, out, config, workers=workers, progress=progress, lobe_codes=codes, redo=redo)


def _summarise(report: PrepareReport, out: Path) -> None:
    typer.echo(
        f"{out}: {len(report.prepared)} prepared, {len(report.skipped)} already there, {len(report.failed)} failed"
    )
    for scan_id, reason in report.failed.items():
        typer.secho(f"  {scan_id}: {reason}", fg=typer.colors.RED, err=True)
    for group in report.duplicates:
        typer.secho(f"  the same image: {', '.join(group)}", fg=typer.colors.YELLOW, err=True)
