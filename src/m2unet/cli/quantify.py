"""``m2unet quantify``: volumes, opacity and CT scores from a lobe mask of any tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2unet.anatomy import CODE_SYSTEMS
from m2unet.cli.common import Accept, Series, code_system, say, writable

if TYPE_CHECKING:
    from rich.table import Table

    from m2unet.quantify.quantities import Quantities

_NOTHING = "–"


def quantify(
    scan: Annotated[Path, typer.Argument(help="CT file or DICOM folder.")],
    lobes: Annotated[
        Path,
        typer.Option(
            "--lobes",
            help="Lobe mask of any tool: label map, .seg.nrrd, DICOM SEG, or a folder of one file a lobe.",
        ),
    ],
    lobe_codes: Annotated[
        str,
        typer.Option(
            "--lobe-codes",
            "--codes",
            help=f"Whose codes the mask uses: {', '.join(CODE_SYSTEMS)}; auto recognises them, and names decide.",
        ),
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", callback=writable, help="Folder for tables, JSON and opacity mask.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A cut or scale, e.g. consolidation_from_hu=-250.")
    ] = None,
    series: Series = None,
    accept: Accept = None,
) -> None:
    """Measure lobes, opacity, twenty regions and two CT scores of a scan whose lobes are already segmented."""
    from m2unet.ct.identity import identify_scan
    from m2unet.workflows.quantify import opacity_config, quantify_scan, refuse_other_figures, write_quantified

    identity = None if out is None else identify_scan(scan, series=series)
    if out is not None and identity is not None and identity.basis != "path":
        refuse_other_figures(out, identity.digest)
    config = opacity_config(overrides or [])
    found = quantify_scan(scan, lobes, codes=code_system(lobe_codes), config=config, series=series, accept=accept or ())
    if out is not None:
        write_quantified(found, out)
    if as_json:
        say(json.dumps(found.document(), indent=2, allow_nan=False, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    console.print(_table(found.quantities))
    for line in _lines(found.quantities):
        say(line)
    say(f"lobe mask: {found.mask.summary()}")
    for finding in found.findings:
        if finding.level == "warning":
            say(f"warning: {finding.code}: {finding.found}")
    if out is not None:
        say(f"written to {out}")


def _table(quantities: Quantities) -> Table:
    from rich.table import Table

    shown = Table(title="Lobes and opacity", title_justify="left")
    shown.add_column("part", no_wrap=True)
    for column in ("ml", "mean HU", "opacity %", "ground glass %", "consolidation %", "lobar score"):
        shown.add_column(column, justify="right")
    shown.add_column("remark")
    for row in quantities.lobe_rows():
        figures = ("volume_ml", "mean_hu", "opacity_percent", "ground_glass_percent", "consolidation_percent")
        score = _NOTHING if row["lobar_score"] is None else str(row["lobar_score"])
        remark = quantities.volumes[row["part"]].reason or ""
        shown.add_row(row["part"], *(_number(row[name], name) for name in figures), score, remark)
    return shown


def _number(value: float | None, name: str) -> str:
    if value is None:
        return _NOTHING
    return f"{value:.1f}" if name.endswith("percent") else f"{value:.0f}"


def _lines(quantities: Quantities) -> list[str]:
    lines = []
    for score, said in ((quantities.severity_score, "CT severity score"), (quantities.lobar_score, "lobar CT score")):
        total = str(score.total) if score.total is not None else f"between {score.least} and {score.most}"
        text = f"{said}: {total} of {score.highest}"
        if score.severe is not None:
            text += ", severe by its published threshold" if score.severe else ", not severe by its published threshold"
        lines.append(text + (f" ({score.reason})" if score.reason else ""))
    airway = quantities.airway_reason if quantities.airway_ml is None else f"{quantities.airway_ml:.0f} ml"
    return [*lines, f"airway outside the lobes: {airway}", "Research use only."]
