"""``m2unet prepare``: bring the scans of a manifest into a store."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2unet.cli.common import LobeCodes, Overrides, Preset, code_system, say, settings, writable

if TYPE_CHECKING:
    from m2unet.cohort.prepare import PrepareReport

logger = logging.getLogger(__name__)


def prepare(
    manifest: Annotated[Path, typer.Argument(help="The cohort's manifest (CSV).")],
    out: Annotated[Path, typer.Option("--out", "-o", callback=writable, help="Folder of the store; made if missing.")],
    *,
    preset: Preset = "paper",
    overrides: Overrides = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    lobe_codes: LobeCodes = None,
    redo: Annotated[bool, typer.Option("--redo", help="Prepare finished scans again.")] = False,
) -> None:
    """Check a manifest, crop its scans to the body and store them, skipping what is finished.

    Exit code 0: all scans are in the store; 1: some failed; 2: all did, or the manifest or the use is wrong.
    """
    from m2unet.cli.progress import TerminalProgress
    from m2unet.cohort.manifest import read_manifest
    from m2unet.cohort.prepare import ScanOutcome, prepare_cohort
    from m2unet.config import load_config

    codes = None if lobe_codes is None else code_system(lobe_codes)
    config = load_config(preset, settings(overrides)).prepare
    cohort = read_manifest(manifest)
    for warning in cohort.warnings:
        logger.warning("%s: %s", manifest.name, warning)
    with TerminalProgress().stage("preparing scans") as step:

        def show(outcome: ScanOutcome, done: int, total: int) -> None:
            step(done, total, "" if outcome.reason is None else f"{outcome.scan_id} {outcome.status}")
            for finding in outcome.warnings:
                logger.warning("%s: %s: %s", outcome.scan_id, finding.code, finding.found)

        report = prepare_cohort(cohort, out, config, workers=workers, progress=show, lobe_codes=codes, redo=redo)
    _summarise(report, out)
    raise typer.Exit(report.exit_code)


def _summarise(report: PrepareReport, out: Path) -> None:
    say(f"{out}: {len(report.prepared)} prepared, {len(report.skipped)} already there, {len(report.failed)} failed")
    for scan_id, reason in report.failed.items():
        typer.secho(f"  {scan_id}: {reason}", fg=typer.colors.RED, err=True)
    for group in report.duplicates:
        typer.secho(f"  the same image: {', '.join(group)}", fg=typer.colors.YELLOW, err=True)
