"""The paper's printed figures, read from ``published.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from m2unet.evaluation.summary import Spread

FOLDS = 5


@dataclass(frozen=True)
class PublishedTable:
    """One table of the paper.

    Attributes:
        name: ``table1`` to ``table7``.
        number: Roman, as printed.
        title: in our words.
        notes: what to know of the printed figures.
        rows: by row key, its figures.
    """

    name: str
    number: str
    title: str
    notes: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Spread]]


@dataclass(frozen=True)
class PublishedFigure:
    """One figure of the paper that is redrawn: ``figure2``, its number and a title in our words."""

    name: str
    number: int
    title: str


@dataclass(frozen=True)
class Published:
    """Everything quoted from the paper.

    Attributes:
        source: the paper.
        data: the cohort it was measured on.
        tables, figures: by name.
    """

    source: str
    data: str
    tables: Mapping[str, PublishedTable]
    figures: Mapping[str, PublishedFigure]


@cache
def published() -> Published:
    """Read the data file; once."""
    values = yaml.safe_load((resources.files("m2unet.paper") / "published.yaml").read_text(encoding="utf-8"))
    tables = {
        name: PublishedTable(
            name=name,
            number=table["number"],
            title=table["title"],
            notes=tuple(table["notes"]),
            rows={
                key: {metric: _spread(*numbers) for metric, numbers in row.items()}
                for key, row in table.get("rows", {}).items()
            },
        )
        for name, table in values["tables"].items()
    }
    figures = {name: PublishedFigure(name, f["number"], f["title"]) for name, f in values["figures"].items()}
    return Published(values["source"], values["data"], tables, figures)


def _spread(mean: float, sd: float | None = None) -> Spread:
    return Spread(mean, sd, FOLDS)
