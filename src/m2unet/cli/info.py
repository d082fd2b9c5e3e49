"""``m2unet info``: a network block by block, beside the paper's Table I."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from m2unet.cli.common import Overrides, Preset, say, settings

if TYPE_CHECKING:
    from rich.table import Table

    from m2unet.models.table import ModelTable


def info(
    model: Annotated[str | None, typer.Option("--model", help="Which network; the preset's if not given.")] = None,
    preset: Preset = "paper",
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count a network's parameters block by block, beside the figures of the paper."""
    from m2unet.config import load_config
    from m2unet.models.registry import build_model
    from m2unet.models.table import model_table

    changes = settings(overrides) + ([f"model.name={model}"] if model else [])
    table = model_table(build_model(load_config(preset, changes).model))
    if as_json:
        say(json.dumps(table.to_dict(), indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    Console(width=None).print(_rich(table))
    say(_closing(table))


def _rich(table: ModelTable) -> Table:
    from rich.table import Table

    shown = Table(title=f"{table.model}: learnable parameters", title_justify="left")
    worded = any(row.layers for row in table.rows)
    shown.add_column("block", no_wrap=True)
    if worded:
        shown.add_column("layers")
    shown.add_column("parameters", justify="right", no_wrap=True)
    shown.add_column("/ 1024", justify="right", no_wrap=True)
    if worded:
        shown.add_column("paper", justify="right", no_wrap=True)
    for row in table.rows:
        numbers = [f"{row.parameters:,}", f"{row.parameters / 1024:.1f}K"]
        cells = [row.block, row.layers, *numbers, row.paper or ""] if worded else [row.block, *numbers]
        shown.add_row(*cells)
    return shown


def _closing(table: ModelTable) -> str:
    from m2unet.models.table import PAPER

    lines = [f"{table.parameters:,} parameters, {table.mib:.2f} MiB as float32"]
    if table.paper_mib is not None:
        lines[0] += f" (paper: {table.paper_mib:.2f} MiB)"
    if not table.paper_sizes:
        lines.append("These are not the paper's sizes: its figures are those of the paper's network.")
    if any(row.layers for row in table.rows):
        lines.append("cbr(i,o): 3x3 convolution with bias, batch normalisation, ReLU. GCP: global contrast pooling.")
    lines.append(f"Paper: {PAPER}, Tables I and III; its K is 1024.")
    return "\n".join(lines)
