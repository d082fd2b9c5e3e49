"""The table and the page of a cohort."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from m2unet.report.cohort_page import COLUMNS, CohortCase, cohort_csv, render_cohort
from m2unet.workflows.cohort_page import write_cohort_page

from .conftest import WrittenCase
from .pages import read_page


@pytest.fixture(scope="module")
def cases(written: WrittenCase) -> list[CohortCase]:
    """The case, a milder one with another volume, and one that failed."""
    document = written.document
    milder = document.model_copy(
        update={
            "case": "b",
            "severity": document.severity.model_copy(
                update={
                    "probability": 0.1,
                    "answer": "uncertain, read by a human",
                    "abstained": True,
                    "reasons": ("the interval 0.05 to 0.60 straddles the threshold 0.50",),
                }
            ),
            "lobes": document.lobes.model_copy(
                update={
                    "scores": tuple(
                        s.model_copy(update={"total": None, "least": 1, "most": 3}) for s in document.lobes.scores
                    ),
                    "volumes": tuple(
                        v.model_copy(update={"volume_ml": None}) if v.region == "RML" else v
                        for v in document.lobes.volumes
                    ),
                }
            ),
        }
    )
    return [CohortCase("a #1", document), CohortCase("b", milder), CohortCase("c", None, "no <image>, it is a note")]


def test_the_table_has_a_row_a_case_and_no_zero_for_nothing(cases: list[CohortCase]) -> None:
    rows = list(csv.DictReader(io.StringIO(cohort_csv(cases))))
    assert list(rows[0]) == list(COLUMNS) and [row["case"] for row in rows] == ["a #1", "b", "c"]
    document = cases[0].document
    assert document is not None
    lungs = document.lobes.region("lungs")
    assert lungs is not None
    assert float(rows[0]["severity"]) == 0.8 and float(rows[0]["severity_spread"]) == 0.05
    assert float(rows[0]["volume_ml_lungs"]) == lungs.volume_ml
    assert float(rows[0]["opacity_percent_lungs"]) == lungs.opacity_percent
    assert rows[0]["ct_severity_score"] == str(document.lobes.score("ct-severity-score").total)  # type: ignore[union-attr]
    assert rows[0]["warnings"] == "thick-slices" and rows[0]["status"] == "done"
    assert rows[1]["volume_ml_RML"] == "" and rows[1]["ct_severity_score"] == ""
    assert (rows[1]["ct_severity_score_least"], rows[1]["ct_severity_score_most"]) == ("1", "3")
    assert rows[2]["error"] == "no <image>, it is a note" and rows[2]["status"] == "failed"
    assert {rows[2][name] for name in COLUMNS if name not in ("case", "status", "error")} == {""}


def test_the_page_shows_every_case_and_links_to_it(cases: list[CohortCase]) -> None:
    text = render_cohort(cases)
    page = read_page(text)
    assert not page.unclosed
    table = page.tables[0]
    assert len(table) == 4 and [row[1].removesuffix("view") for row in table[1:]] == ["a #1", "b", "c"]
    assert table[1][2] == "0.80" and table[2][5] == "1–3" and table[2][10].startswith("–")
    assert "failed: no <image>, it is a note" in table[3][-1].replace("failed:", "failed: ").replace("  ", " ")
    assert "no &lt;image&gt;" in text
    assert {"a%20%231/report.html", "a%20%231/viewer.html", "b/report.html", "cohort.csv"} <= set(page.references)
    assert not any(reference.startswith(("http", "//", "c/")) for reference in page.references)
    assert all(image["alt"] for image in page.images) and len(page.images) == 2
    assert "1 case could not be predicted" in page.text and "digital phantoms" in page.text


def test_answers_are_counted_and_one_left_to_a_human_says_why(cases: list[CohortCase]) -> None:
    rows = list(csv.DictReader(io.StringIO(cohort_csv(cases))))
    assert [row["severity_answer"] for row in rows] == ["", "uncertain, read by a human", ""]
    assert rows[1]["severity_reasons"] == "the interval 0.05 to 0.60 straddles the threshold 0.50"
    page = read_page(render_cohort(cases))
    assert [row[4] for row in page.tables[0]] == ["Answer", "–", "uncertain, read by a human", "–"]
    assert "uncertain: the interval 0.05 to 0.60" in page.tables[0][2][-1]
    assert "Answers: 1 uncertain, to be read by a human." in " ".join(page.text.split())


def test_cells_carry_the_numbers_they_are_sorted_by(cases: list[CohortCase]) -> None:
    text = render_cohort(cases)
    assert 'data-value="0.8"' in text and 'data-value="0.1"' in text
    assert text.count('aria-sort="none"') == 14


def test_histograms_count_every_case(cases: list[CohortCase]) -> None:
    text = render_cohort(cases)
    assert "2 cases, median 0.45; 1 without" in text
    assert text.count("<figure") == 4
    values = [0.8, 0.1]
    expected, edges = np.histogram(values, bins=20, range=(0, 1))
    for low, high, count in zip(edges[:-1], edges[1:], expected, strict=True):
        assert (f"<title>{low:.2f} to {high:.2f}: {count}</title>" in text) == bool(count)


def test_a_cohort_of_failures_alone_has_a_page(tmp_path: Path) -> None:
    files = write_cohort_page(tmp_path, [CohortCase("a", None, "gone"), CohortCase("b", None, "gone")])
    assert [file.name for file in files] == ["cohort.csv", "cohort.html"]
    page = read_page((tmp_path / "cohort.html").read_text(encoding="utf-8"))
    assert "2 cases could not be predicted" in page.text


def test_the_page_can_be_left_out(cases: list[CohortCase], tmp_path: Path) -> None:
    assert [file.name for file in write_cohort_page(tmp_path, cases, page=False)] == ["cohort.csv"]
    assert not (tmp_path / "cohort.html").exists()
