"""Many scans at once: ``cohort.csv``, a row a case, and ``cohort.html``, a sortable table with plots and links."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from m2unet.quantify.lobes import GROUPS
from m2unet.report.html import environment
from m2unet.report.result import NOTICE, ResultDocument

SCORES = {"ct-severity-score": "ct_severity_score", "lobar-ct-score": "lobar_ct_score"}
BINS = 20


@dataclass(frozen=True)
class CohortCase:
    """One case of a cohort.

    Attributes:
        folder: its folder, relative to the page; also its name.
        document: what was found, or None.
        error: why it failed, or None.
        digest: of its scan; None where the result does not say.
        extra: the user's own columns of a manifest.
    """

    folder: str
    document: ResultDocument | None
    error: str | None = None
    digest: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Flat figures; None where one cannot be had."""
        found: dict[str, Any] = {"case": self.folder, "status": "failed" if self.document is None else "done"}
        found |= dict.fromkeys(COLUMNS[3:])
        found |= {"scan_digest": self.digest, "error": self.error}
        if self.document is None:
            return found
        severity, lobes = self.document.severity, self.document.lobes
        found |= {
            "severity": severity.probability,
            "severity_spread": severity.spread,
            "severity_low": severity.low,
            "severity_high": severity.high,
            "severity_raw": severity.raw,
            "severity_answer": severity.answer,
            "severity_reasons": "; ".join(severity.reasons) or None,
            "warnings": "; ".join(f.code for f in self.document.findings if f.level == "warning") or None,
            "trained_on": self.document.model.trained_on,
        }
        for part in lobes.volumes:
            for figure in ("volume_ml", "opacity_ml", "opacity_percent", "mean_hu"):
                found[f"{figure}_{part.region}"] = getattr(part, figure)
        found["partial"] = " ".join(part.region for part in lobes.volumes if part.partial) or None
        for name, column in SCORES.items():
            score = lobes.score(name)
            if score is not None:
                found |= {column: score.total, f"{column}_least": score.least, f"{column}_most": score.most}
        return found


COLUMNS: tuple[str, ...] = (
    "case",
    "scan_digest",
    "status",
    "severity",
    "severity_spread",
    "severity_low",
    "severity_high",
    "severity_raw",
    "severity_answer",
    "severity_reasons",
    *(f"{column}{end}" for column in SCORES.values() for end in ("", "_least", "_most")),
    *(f"{figure}_{part}" for figure in ("volume_ml", "opacity_ml", "opacity_percent", "mean_hu") for part in GROUPS),
    "partial",
    "warnings",
    "trained_on",
    "error",
)


def cohort_csv(cases: Sequence[CohortCase]) -> str:
    """One row a case with :data:`COLUMNS` and the user's own; an empty cell where a value is not available.

    An own column whose name is taken is called ``own_NAME``.
    """
    own = {name: f"own_{name}" if name in COLUMNS else name for case in cases for name in case.extra}
    text = io.StringIO()
    table = csv.DictWriter(text, [*COLUMNS, *own.values()], lineterminator="\n")
    table.writeheader()
    for case in cases:
        row = case.row() | {own[name]: value for name, value in case.extra.items()}
        table.writerow({name: "" if value is None else value for name, value in row.items()})
    return text.getvalue()


def render_cohort(cases: Sequence[CohortCase], title: str = "Cohort") -> str:
    """The page of a cohort; pictures are those in the cases' folders, everything else is inside.

    Args:
        cases: in the order of the table.
        title: of the page, without identifiers.
    """
    rows = [(case, case.row()) for case in cases]
    warnings = dict.fromkeys(text for case in cases if case.document for text in case.document.warnings)
    return (
        environment()
        .get_template("cohort.html.j2")
        .render(
            title=title,
            rows=rows,
            failed=sum(case.document is None for case in cases),
            answers=Counter(row["severity_answer"] for _, row in rows if row["severity_answer"]),
            warnings=list(warnings),
            notice=NOTICE,
            plots=[plot for plot in (_plot([row for _, row in rows], *spec) for spec in _PLOTS) if plot is not None],
        )
    )


@dataclass(frozen=True)
class Histogram:
    """A histogram as the page draws it.

    Attributes:
        title: with the unit.
        low, high: of the axis.
        counts: of equal bins between them.
        count: values counted; ``missing`` cases have none.
        missing: cases without a value.
        median: of the values.
        digits: decimals to show.
    """

    title: str
    low: float
    high: float
    counts: tuple[int, ...]
    count: int
    missing: int
    median: float
    digits: int

    @property
    def text(self) -> str:
        """What it shows, for who cannot see it."""
        return f"{self.title}: {self.count} cases, median {self.median:.{self.digits}f}"


_PLOTS: tuple[tuple[str, str, float | None, int], ...] = (
    ("Severity", "severity", 1.0, 2),
    ("CT severity score", "ct_severity_score", 40.0, 0),
    ("Opacity of the lungs, %", "opacity_percent_lungs", None, 1),
    ("Lung volume, ml", "volume_ml_lungs", None, 0),
)


def _plot(
    rows: Sequence[dict[str, Any]], title: str, column: str, highest: float | None, digits: int
) -> Histogram | None:
    values = np.array([row[column] for row in rows if row[column] is not None], dtype=np.float64)
    if not values.size:
        return None
    high = highest or _round_up(float(values.max()))
    counts, _ = np.histogram(values, bins=BINS, range=(0.0, high))
    return Histogram(
        title,
        0.0,
        high,
        tuple(int(count) for count in counts),
        int(values.size),
        len(rows) - int(values.size),
        float(np.median(values)),
        digits,
    )


def _round_up(value: float) -> float:
    """The next 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value)
