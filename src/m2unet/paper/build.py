"""The paper's tables from our outcomes."""

from __future__ import annotations

from collections.abc import Mapping

from m2unet.config import ModelConfig
from m2unet.models.registry import build_model
from m2unet.models.table import model_table
from m2unet.paper.differences import Comparison, compare
from m2unet.paper.outcome import Outcome, Setting
from m2unet.paper.plan import LOBE_COLUMNS, Table
from m2unet.paper.published import published
from m2unet.paper.render import Line, Rendered, cell, cells

FULL_SIZE = "full_size_mib"


def method_table(table: Table, outcomes: Mapping[str, Outcome], setting: Setting) -> Rendered:
    """One of Tables II to VII.

    Args:
        table: its plan.
        outcomes: by key of an experiment; one that is missing leaves dashes.
        setting: on what ours were obtained.
    """
    source = published()
    printed = source.tables[table.name]
    sized = table.columns == LOBE_COLUMNS
    lines = []
    for row in table.rows:
        outcome = outcomes.get(row.experiment.key)
        ours = {} if outcome is None else cells(outcome.figures(), table.columns)
        if sized and outcome is not None and outcome.full_size_mib is not None:
            ours[FULL_SIZE] = f"{outcome.full_size_mib:.2f}"
        lines.append(Line(row.label, ours, cells(printed.rows.get(row.key, {}), table.columns)))
    return Rendered(
        name=table.name,
        heading=f"Table {printed.number}. {printed.title}",
        columns=table.columns,
        plain=(FULL_SIZE,) if sized else (),
        lines=tuple(lines),
        notes=(setting.line(), *setting.warnings, f"Paper: {source.data}.", *printed.notes),
    )


def comparisons(table: Table, outcomes: Mapping[str, Outcome], *, seed: int = 0) -> list[Comparison]:
    """The baseline of a table against each other row that was run."""
    rows = [row for row in table.rows if row.experiment.key in outcomes]
    base = next((row for row in rows if row.key == table.baseline), None)
    if base is None:
        return []
    second = (base.label, outcomes[base.experiment.key])
    found: list[Comparison] = []
    for row in rows:
        if row is not base:
            found += compare((row.label, outcomes[row.experiment.key]), second, table.columns, seed=seed)
    return found


def architecture_table() -> Rendered:
    """Table I, counted in the live network at the paper's size."""
    source = published()
    printed = source.tables["table1"]
    counted = model_table(build_model(ModelConfig()))
    lines = [
        Line(
            "M²UNet",
            {"block": row.block, "layers": row.layers, "parameters": str(row.parameters), "size": _k(row.parameters)},
            {} if row.paper is None else {"size": row.paper},
        )
        for row in counted.rows
    ]
    size = published().tables["table3"].rows["m2unet"]["size_mib"]
    total = {"block": "total", "parameters": str(counted.parameters), "size": f"{counted.mib:.3f} MiB"}
    lines.append(Line("M²UNet", total, {"size": f"{cell(size, digits=2)} MiB"}))
    return Rendered(
        name="table1",
        heading=f"Table {printed.number}. {printed.title}",
        columns=("size",),
        plain=("block", "layers", "parameters"),
        lines=tuple(lines),
        notes=("Ours: counted in this package's network; no data are involved.", *printed.notes),
    )


def _k(parameters: int) -> str:
    return f"{parameters / 1024:.1f}K"
