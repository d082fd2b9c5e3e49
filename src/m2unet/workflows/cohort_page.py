"""The table and the page of a cohort of predicted cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m2unet.files import write_text
from m2unet.report.cohort_page import CohortCase, cohort_csv, render_cohort

TABLE_FILE = "cohort.csv"
PAGE_FILE = "cohort.html"


def write_cohort_page(out: Path, cases: Sequence[CohortCase], *, page: bool = True) -> list[Path]:
    """Write ``cohort.csv`` and ``cohort.html``.

    Args:
        out: folder of the cases' folders.
        cases: in the order of the table.
        page: whether to write the page; the table is always written.

    Returns:
        The files written.
    """
    write_text(out / TABLE_FILE, cohort_csv(cases))
    if not page:
        return [out / TABLE_FILE]
    write_text(out / PAGE_FILE, render_cohort(cases))
    return [out / TABLE_FILE, out / PAGE_FILE]
