"""Tables as Markdown, CSV and LaTeX, ours and the paper's side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from m2unet.evaluation.summary import DASH, Spread

DIGITS = 3
OURS, PAPER = "ours", "paper"


@dataclass(frozen=True)
class Line:
    """One row of a rendered table.

    Attributes:
        method: what stands in the first column.
        ours, paper: cells by column; what is missing shows as a dash.
    """

    method: str
    ours: Mapping[str, str]
    paper: Mapping[str, str]


@dataclass(frozen=True)
class Rendered:
    """A table ready to be written.

    Attributes:
        name: ``table2``; names the files.
        heading: e.g. ``Table II. Severity assessment``.
        columns: figures, shown twice: ours and the paper's.
        lines: one a row.
        plain: columns of words or of ours alone, shown before the figures.
        notes: lines below it; the first says on which data ours were obtained.
    """

    name: str
    heading: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    plain: tuple[str, ...] = ()

    def grid(self) -> list[list[str]]:
        """Header and rows, two lines a method where the paper gives figures: ours, then the paper's."""
        rows = [["method", "figures", *self.plain, *self.columns]]
        for line in self.lines:
            words = [line.ours.get(name, "") for name in self.plain]
            rows.append([line.method, OURS, *words, *(line.ours.get(name, DASH) for name in self.columns)])
            if line.paper:
                blank = ["" for _ in self.plain]
                rows.append(["", PAPER, *blank, *(line.paper.get(name, DASH) for name in self.columns)])
        return rows


def cell(spread: Spread | None, *, digits: int = DIGITS) -> str:
    """``0.985 ± 0.005``; a dash for what is not known."""
    return DASH if spread is None else spread.cell(digits)


def cells(figures: Mapping[str, Spread], columns: Sequence[str]) -> dict[str, str]:
    """The cells of one row; sizes have two decimals."""
    return {
        name: cell(figures[name], digits=2 if name.endswith("_mib") else DIGITS) for name in columns if name in figures
    }


def to_csv(table: Rendered) -> str:
    """``method``, our figures under their plain names, the paper's under ``paper_NAME``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", *table.plain, *table.columns, *(f"paper_{name}" for name in table.columns)])
    for line in table.lines:
        ours = [line.ours.get(name, "") for name in table.plain] + [line.ours.get(c, DASH) for c in table.columns]
        writer.writerow([line.method, *ours, *(line.paper.get(c, DASH) for c in table.columns)])
    return text.getvalue()


def to_markdown(table: Rendered) -> str:
    """A section: heading, table, notes."""
    header, *rows = table.grid()
    body = [_pipes(header), _pipes(["---", "---", *("---:" for _ in header[2:])]), *map(_pipes, rows)]
    return "\n".join([f"## {table.heading}", "", *body, "", *(f"{note}  " for note in table.notes)]) + "\n"


def _pipes(row: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |"


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "²": r"$^2$",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "<": "$<$",
    ">": "$>$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def latex_text(text: str) -> str:
    """Text for LaTeX, whatever stands in it."""
    return "".join(_LATEX.get(character, character) for character in text)


def to_latex(table: Rendered) -> str:
    """A ``table`` environment with plain rules; needs no package."""
    header, *rows = table.grid()
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(table.heading)}}}", rf"\label{{{table.name}}}"]
    lines += [rf"\begin{{tabular}}{{ll{'r' * len(header[2:])}}}", r"\hline", _ampersands(header), r"\hline"]
    lines += [*map(_ampersands, rows), r"\hline", r"\end{tabular}"]
    lines += [rf"\par\smallskip\footnotesize {latex_text(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _ampersands(row: Sequence[str]) -> str:
    return " & ".join(map(latex_text, row)) + r" \\"
