"""Reading our pages as a browser's parser would: what they refer to, their tables, their texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input", "hr", "rect", "line"}


@dataclass
class Page:
    """What a page holds.

    Attributes:
        references: every href and src, in order.
        tables: rows of cell texts of each table.
        images: attributes of each image.
        text: all text outside of scripts and styles.
        unclosed: tags still open at the end.
    """

    references: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    images: list[dict[str, str | None]] = field(default_factory=list)
    text: str = ""
    unclosed: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.page.references += [v for k, v in attrs if k in ("href", "src", "srcset", "action", "data") and v]
        if tag == "img":
            self.page.images.append(found)
        if tag == "table":
            self.page.tables.append([])
        if tag == "tr":
            self.page.tables[-1].append([])
        if tag in ("td", "th"):
            self.page.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if {"script", "style"} & set(self.open):
            return
        self.page.text += data
        if {"td", "th"} & set(self.open):
            self.page.tables[-1][-1][-1] += data.strip()


def read_page(text: str) -> Page:
    """Parse a page; wrongly nested tags fail."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    reader.page.unclosed = reader.open
    return reader.page
