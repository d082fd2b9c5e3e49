"""Table I of the paper, computed from the live network, beside the figures the paper prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from m2unet.config import ModelConfig
from m2unet.models.base import SeverityModel
from m2unet.models.m2unet import M2UNet

SCHEMA = "m2unet.model-table"
SCHEMA_VERSION = 1
PAPER = "He et al. 2020, arXiv 2005.03832v2"

# Parameters by block as Table I prints them; its K is 1024.
PAPER_BLOCKS: MappingProxyType[str, str] = MappingProxyType(
    {
        "encoder 1": "37K",
        "encoder 2": "72K",
        "encoder 3": "72K",
        "encoder 4": "72K",
        "encoder 5": "2595K",
        "embedding-level MIL": "193K",
        "image-level MIL": "48K",
        "classifier": "0.3K",
        "decoder 5": "397K",
        "decoder 4": "145K",
        "decoder 3": "145K",
        "decoder 2": "145K",
        "decoder 1": "0.5K",
    }
)

# Sizes in MiB of float32 weights, from Table III.
PAPER_MIB: MappingProxyType[str, float] = MappingProxyType(
    {"m2unet": 15.32, "seg_only": 14.37, "unet": 131.71, "unetpp": 34.97}
)


@dataclass(frozen=True)
class TableRow:
    """One block.

    Attributes:
        block: its name, Table I's where the network is M²UNet.
        layers: what it is made of, in words; empty for other networks.
        parameters: learnable numbers in it.
        paper: the paper's figure as printed, None where it gives none.
    """

    block: str
    layers: str
    parameters: int
    paper: str | None


@dataclass(frozen=True)
class ModelTable:
    """A network, block by block.

    Attributes:
        model: its registered name.
        rows: the blocks, in the order of the data.
        parameters: learnable numbers in all; the rows add up to it.
        mib: their size as float32, in MiB.
        paper_mib: the paper's figure for that, None where it gives none.
        paper_sizes: whether the network was built with the paper's sizes, so that its figures should be met.
    """

    model: str
    rows: tuple[TableRow, ...]
    parameters: int
    mib: float
    paper_mib: float | None
    paper_sizes: bool

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON values, with schema, version and the source of the paper's figures."""
        return {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "paper": PAPER, **asdict(self)}


def model_table(model: SeverityModel) -> ModelTable:
    """Count a network's parameters block by block: Table I for M²UNet and its halves, top-level modules for others."""
    rows = _table_one(model) if isinstance(model, M2UNet) else _top_level(model)
    total = count(model)
    return ModelTable(
        model=model.config.name,
        rows=tuple(row for row in rows if row.parameters),
        parameters=total,
        mib=mebibytes(total),
        paper_mib=PAPER_MIB.get(model.config.name),
        paper_sizes=model.config == ModelConfig(name=model.config.name),
    )


def count(module: nn.Module) -> int:
    """Learnable parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def mebibytes(parameters: int) -> float:
    """Size in MiB of so many float32 numbers."""
    return parameters * 4 / 2**20


def _table_one(model: M2UNet) -> list[TableRow]:
    c = model.config
    w, d, p, q = c.width, c.deep_width, c.instance_concepts, c.bag_concepts
    sizes = [(model.in_channels, w), *[(w, w)] * 3, (w, d)]
    rows = [
        _row(f"encoder {level}", ("max-pool 2, " if level > 1 else "") + f"cbr({a},{b}) cbr({b},{b})", block)
        for level, ((a, b), block) in enumerate(zip(sizes, model.encoder.blocks, strict=True), start=1)
    ]
    if "severity" in model.tasks:
        rows.append(_row("embedding-level MIL", f"GCP {d}->{p}, conv1x1({p},{p})", model.embedding_mil))
        rows.append(_row("image-level MIL", f"GCP {p}->{q}, conv1x1({q},{q})", model.image_mil))
        rows.append(_row("classifier", f"conv1x1({q},2)", model.classifier))
    if "lobes" in model.tasks:
        for level, a, block in zip((5, 4, 3, 2), (d, w, w, w), model.decoder.blocks, strict=True):
            layers = f"up 2, cbr({a},{w}), join encoder {level - 1}, cbr({2 * w},{w}) cbr({w},{w})"
            rows.append(_row(f"decoder {level}", layers, block))
        rows.append(_row("decoder 1", f"conv1x1({w},{c.classes})", model.decoder.head))
    return rows


def _row(block: str, layers: str, module: nn.Module) -> TableRow:
    return TableRow(block, layers, count(module), PAPER_BLOCKS.get(block))


def _top_level(model: SeverityModel) -> Iterable[TableRow]:
    for name, child in model.named_children():
        parts = child.named_children() if not isinstance(child, nn.ModuleDict | nn.ModuleList) else ()
        grand = [(f"{name}.{inner}", part) for inner, part in parts] if count(child) == count(model) else []
        for label, module in grand or [(name, child)]:
            yield TableRow(label, "", count(module), None)
