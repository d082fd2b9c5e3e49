"""One HTML page that holds everything and fetches nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from m2unet.paper.differences import HEADER, Comparison, grid
from m2unet.paper.outcome import Setting
from m2unet.paper.published import PublishedFigure, published
from m2unet.paper.render import Rendered

TITLE = "M²UNet: the paper's experiments"


@dataclass(frozen=True)
class Section:
    """One table or figure on the page.

    Attributes:
        name: its anchor.
        short: its name in the list of contents.
        heading: above it.
        grid: header and rows of a table, ours and the paper's lines marked in the second column.
        image: a figure as data URI, else empty.
        notes: lines below.
        tests: rows of paired tests.
    """

    name: str
    short: str
    heading: str
    grid: list[list[str]] = field(default_factory=list)
    image: str = ""
    notes: tuple[str, ...] = ()
    tests: list[list[str]] = field(default_factory=list)


def table_section(table: Rendered, tests: Sequence[Comparison]) -> Section:
    """A table with its tests."""
    short = table.heading.split(".")[0]
    return Section(table.name, short, table.heading, table.grid(), notes=table.notes, tests=grid(tests))


def figure_section(figure: PublishedFigure, png: bytes, notes: tuple[str, ...]) -> Section:
    """A figure, embedded."""
    uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return Section(figure.name, f"Figure {figure.number}", f"Figure {figure.number}. {figure.title}", [], uri, notes)


def render_page(sections: Sequence[Section], setting: Setting, footer: str) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("m2unet.paper"), autoescape=True, undefined=StrictUndefined)
    template = environment.get_template("reproduction.html.j2")
    return template.render(
        title=TITLE,
        source=published().source,
        setting=setting,
        sections=sections,
        tests_header=HEADER,
        footer=footer,
    )
