"""``m2unet check``: is a scan fit for use, before anything is run on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2unet.cli.common import Accept, Series

if TYPE_CHECKING:
    from m2unet.ct.checks import ScanCheck

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def check(
    scans: Annotated[list[Path], typer.Argument(help="CT files or DICOM folders.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    series: Series = None,
    accept: Accept = None,
) -> None:
    """Check scans: what they are, and what is wrong with them. Exit code 0 all can be used, 1 some, 2 none."""
    import json

    if series is not None and len(scans) > 1:
        raise typer.BadParameter("it names a series of one scan; give one", param_hint="--series")
    from m2unet.ct.checks import check_scan
    from m2unet.errors import EXIT_BAD_INPUT, EXIT_SOME_FAILED

    checks = []
    for scan in scans:
        checks.append(check_scan(scan, series=series, accept=accept or ()))
        if not as_json:
            _show(checks[-1])
    if as_json:
        typer.echo(json.dumps([done.to_dict() for done in checks], indent=2, ensure_ascii=False))
    bad = sum(not done.ok for done in checks)
    if bad:
        raise typer.Exit(EXIT_BAD_INPUT if bad == len(checks) else EXIT_SOME_FAILED)


def _show(done: ScanCheck) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    verdict = "[green]can be used[/]" if done.ok else "[bold red]cannot be used[/]"
    console.print(f"[bold]{escape(str(done.path))}[/]: {verdict}", highlight=False, soft_wrap=True)
    if done.shape is not None and done.spacing_mm is not None:
        sizes = " x ".join(map(str, done.shape))
        steps = " x ".join(f"{step:.3g}" for step in done.spacing_mm)
        lungs = "no lungs found" if done.lungs_ml is None else f"{done.lungs_ml:.0f} ml of air-filled lung"
        console.print(
            f"  {done.format}, {sizes} voxels of {steps} mm (z, y, x), {lungs}", highlight=False, soft_wrap=True
        )
    if not done.findings:
        return
    table = Table("level", "finding", "found", "to mend", box=None, pad_edge=False, padding=(0, 1))
    for found in done.findings:
        mend = "" if found.level == "note" and found.mend == "none needed" else found.mend
        table.add_row(f"[{STYLES[found.level]}]{found.level}[/]", found.code, escape(found.found), escape(mend))
    console.print(table)
