"""``m2unet import`` and ``m2unet combine``: public data sets become a manifest, several manifests become one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2unet.anatomy import CODE_SYSTEMS
from m2unet.cli.common import code_system, say

if TYPE_CHECKING:
    from m2unet.cohort.importers.items import Fault
    from m2unet.cohort.importers.run import ImportReport

GRADES = ("CT-1", "CT-2", "CT-3", "CT-4")
_SHOWN = 20
"""Lines of one kind shown on the terminal; the report file holds all."""


def import_data(
    data_set: Annotated[
        str,
        typer.Argument(help="stoic, mosmed, totalsegmentator, luna16-lobes, covid-ct-seg or lungmask-masks."),
    ],
    folder: Annotated[Path, typer.Argument(help="The unpacked data set.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The manifest to write (CSV).")],
    *,
    severe_from: Annotated[str, typer.Option("--severe-from", help="mosmed: lowest CT grade that is severe.")] = "CT-3",
    images: Annotated[
        Path | None, typer.Option("--images", help="luna16-lobes, lungmask-masks: folder of the CTs if elsewhere.")
    ] = None,
    codes: Annotated[
        str,
        typer.Option("--lobe-codes", "--codes", help=f"lungmask-masks: whose lobe codes: {', '.join(CODE_SYSTEMS)}."),
    ] = "lungmask",
    min_lobes: Annotated[
        int, typer.Option("--min-lobes", min=0, max=5, help="Leave out scans that show fewer lobes.")
    ] = 5,
    rescale_8bit: Annotated[
        bool, typer.Option("--rescale-8bit", help="covid-ct-seg: map 8-bit volumes back to HU by their known window.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Read every scan now, to leave out bad ones.")
    ] = True,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
) -> None:
    """Make a manifest of a public data set; its lobe masks are recoded beside it, its faults listed all at once.

    Exit code 0: no fault; 1: something was broken or missing; 2: the data set or the use is wrong.
    """
    from m2unet.cli.progress import TerminalProgress
    from m2unet.cohort.importers.items import ImportOptions
    from m2unet.cohort.importers.run import import_data_set, import_folder
    from m2unet.cohort.importers.settle import Outcome

    if severe_from.upper() not in GRADES:
        raise typer.BadParameter(f"{severe_from!r} is not one of {', '.join(GRADES)}", param_hint="--severe-from")
    options = ImportOptions(int(severe_from[-1]), images, code_system(codes), min_lobes, rescale_8bit)
    with TerminalProgress().stage(f"importing {data_set}") as step:

        def show(outcome: Outcome, done: int, total: int) -> None:
            step(done, total, "" if outcome.status == "imported" else f"{outcome.scan_id} {outcome.status}")

        report = import_data_set(data_set, folder, out, options, check=check, workers=workers, progress=show)
    _summarise(report, out)
    say(f"everything that was noticed: {import_folder(out) / 'report.json'}")
    raise typer.Exit(report.exit_code)


def combine_manifests(
    manifests: Annotated[list[Path], typer.Argument(help="Two or more manifests.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The manifest to write (CSV).")],
    *,
    prefix: Annotated[
        list[str] | None,
        typer.Option("--prefix", help="Put before the ids, once a manifest; the file's name if absent."),
    ] = None,
) -> None:
    """Make one cohort of several manifests: lobes from one, severity from another."""
    from m2unet.cohort.combine import combine

    done = combine(manifests, out, prefixes=prefix or None)
    lobes = sum(row.lobes is not None for row in done.rows)
    severe = Counter(row.severity for row in done.rows)
    say(f"{out}: {len(done.rows)} scans, {lobes} with lobes, {severe[1]} severe, {severe[0]} non-severe")
    if done.joined:
        say(f"{len(done.joined)} scans joined from several manifests that name the same image")
    for warning in done.warnings:
        typer.secho(f"warning: {warning}", fg=typer.colors.YELLOW, err=True)


def _summarise(report: ImportReport, out: Path) -> None:
    rows = report.rows
    counts = Counter(row.severity for row in rows)
    said = [f"{sum(row.lobes is not None for row in rows)} with lobes"]
    if report.label is not None:
        said += [f"{counts[1]} severe", f"{counts[0]} non-severe", f"{counts[None]} without severity"]
    if any(row.lesions is not None for row in rows):
        said.append(f"{sum(row.lesions is not None for row in rows)} with lesion masks")
    say(f"{out}: {len(rows)} scans, {', '.join(said)}")
    if report.label is not None:
        say(f"severity: {report.label}")
    _list(f"{len(report.left_out)} left out", report.left_out, typer.colors.YELLOW)
    _list(f"{len(report.faults)} fault(s)", report.faults, typer.colors.RED)
    if report.remarks:
        typer.secho(f"{len(report.remarks)} imported scans with remarks", fg=typer.colors.YELLOW, err=True)


def _list(title: str, faults: tuple[Fault, ...], colour: str) -> None:
    if not faults:
        return
    typer.secho(title, fg=colour, err=True)
    for fault in faults[:_SHOWN]:
        typer.secho(f"  {fault.name}: {fault.reason}", fg=colour, err=True)
    if len(faults) > _SHOWN:
        typer.secho(f"  and {len(faults) - _SHOWN} more", fg=colour, err=True)
