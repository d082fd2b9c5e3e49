"""Mean and standard deviation over folds, and the tables made of them.

A fold in which a figure is undefined (None) is left out of the mean and counted: the cell then says over how many folds
it was taken. The standard deviation is the sample's (n - 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from m2unet.errors import M2UNetError

if TYPE_CHECKING:
    import pandas as pd

DASH = "–"
"""What a table shows for an undefined figure."""


@dataclass(frozen=True)
class Spread:
    """One figure over folds.

    Attributes:
        mean: over the folds where the figure is defined; None when it is defined in none.
        sd: sample standard deviation over them; None with fewer than two.
        folds: how many folds there were.
        undefined: in how many of them the figure was undefined.
    """

    mean: float | None
    sd: float | None
    folds: int
    undefined: int = 0

    def cell(self, digits: int = 3) -> str:
        """``0.985 ± 0.005``, with ``(4 of 5)`` behind it when a fold is left out."""
        if self.mean is None:
            return DASH
        text = f"{self.mean:.{digits}f}" + ("" if self.sd is None else f" ± {self.sd:.{digits}f}")
        return text if not self.undefined else f"{text} ({self.folds - self.undefined} of {self.folds})"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


def spread(values: Iterable[float | None]) -> Spread:
    """Mean and standard deviation of one figure over folds; None and NaN count as undefined."""
    column = [np.nan if value is None else float(value) for value in values]
    known = np.array([value for value in column if np.isfinite(value)])
    return Spread(
        mean=float(known.mean()) if known.size else None,
        sd=float(known.std(ddof=1)) if known.size > 1 else None,
        folds=len(column),
        undefined=len(column) - known.size,
    )


def summarise_folds(folds: Sequence[Mapping[str, float | None]]) -> dict[str, Spread]:
    """Mean and standard deviation of every figure that any fold names; a fold that lacks it counts as undefined.

    Raises:
        M2UNetError: no fold.
    """
    if not folds:
        raise M2UNetError("There is no fold to summarise")
    names = dict.fromkeys(name for fold in folds for name in fold)
    return {name: spread(fold.get(name) for fold in folds) for name in names}


@dataclass(frozen=True)
class ResultsTable:
    """Methods by figures.

    Attributes:
        columns: names of the figures, in order.
        rows: by method, its figures; a missing one shows as a dash.
        title: name of the first column.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Spread]]
    title: str = "method"

    def to_markdown(self, digits: int = 3) -> str:
        """A Markdown table; a method's cells read ``mean ± sd``."""
        lines = [_row([self.title, *self.columns]), _row(["---", *("---:" for _ in self.columns)])]
        for method, figures in self.rows.items():
            lines.append(_row([method, *(self._cell(figures, name, digits) for name in self.columns)]))
        return "\n".join(lines) + "\n"

    def to_csv(self) -> str:
        """CSV with three columns a figure: ``NAME_mean``, ``NAME_sd``, ``NAME_folds`` (folds that count)."""
        return self.to_frame().to_csv(index=False, lineterminator="\n")

    def to_frame(self) -> pd.DataFrame:
        """The numbers as a data frame, one row a method; columns as in :meth:`to_csv`."""
        import pandas as pd

        records = []
        for method, figures in self.rows.items():
            record: dict[str, Any] = {self.title: method}
            for name in self.columns:
                found = figures.get(name, Spread(None, None, 0))
                record |= {f"{name}_mean": found.mean, f"{name}_sd": found.sd}
                record[f"{name}_folds"] = found.folds - found.undefined
            records.append(record)
        return pd.DataFrame.from_records(records)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {
            "columns": list(self.columns),
            "rows": {m: {name: found.to_dict() for name, found in row.items()} for m, row in self.rows.items()},
        }

    @staticmethod
    def _cell(figures: Mapping[str, Spread], name: str, digits: int) -> str:
        return figures[name].cell(digits) if name in figures else DASH


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
