"""The report: right figures, nothing fetched, nothing unescaped, no identity unless asked for."""

from __future__ import annotations

import re

import pytest

from m2unet.report.html import figure, render_report
from m2unet.report.identity import Identity
from m2unet.report.result import LobesPart, ResultDocument, SeverityPart

from .conftest import WrittenCase
from .pages import read_page


def changed(document: ResultDocument, **parts: object) -> ResultDocument:
    return document.model_copy(update=parts)


def test_nothing_is_fetched_from_a_network(written: WrittenCase) -> None:
    text = (written.folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]+\.|url\(|@import|<link|<iframe|<script", text)
    page = read_page(text)
    assert not page.unclosed
    local = set(written.document.files.values()) | {"result.json"}
    assert {r for r in page.references if not r.startswith("data:image/png;base64,")} <= local


def test_the_lobe_table_holds_the_figures_of_the_result(written: WrittenCase) -> None:
    page = read_page((written.folder / "report.html").read_text(encoding="utf-8"))
    lobes = next(table for table in page.tables if table[0][0] == "Part")
    rows = {row[0]: row for row in lobes[2:]}
    assert set(rows) == {"RUL", "RML", "RLL", "LUL", "LLL", "Right lung", "Left lung", "Both lungs"}
    for name, key in (("RLL", "RLL"), ("Both lungs", "lungs")):
        part = written.document.lobes.region(key)
        assert part is not None and part.volume_ml is not None and part.opacity_percent is not None
        assert float(rows[name][1].replace("\u202f", "")) == round(part.volume_ml)
        assert float(rows[name][8]) == pytest.approx(part.opacity_percent, abs=0.051)
    assert [row[11] for row in (rows["RLL"], rows["Both lungs"])] == [
        str(written.document.lobes.region("RLL").lobar_score),  # type: ignore[union-attr]
        "",
    ]


def test_twenty_regions_and_both_scores_are_shown(written: WrittenCase) -> None:
    page = read_page((written.folder / "report.html").read_text(encoding="utf-8"))
    sides = [table for table in page.tables if table[0][0] == "Region"]
    assert [len(table) - 1 for table in sides] == [10, 10]
    scores = [int(row[3]) for table in sides for row in table[1:]]
    total = written.document.lobes.score("ct-severity-score")
    assert total is not None and sum(scores) == total.total
    assert "of 40" in page.text and "of 25" in page.text


def test_warnings_and_notices_are_prominent(written: WrittenCase) -> None:
    text = read_page((written.folder / "report.html").read_text(encoding="utf-8")).text
    assert "Trained on digital phantoms; not for patients." in text and "Research use only." in text
    assert "not calibrated" in text and "0.75 to 0.85" in text
    document = changed(
        written.document, warnings=(), model=written.document.model.model_copy(update={"trained_on": None})
    )
    plain = read_page(render_report(document)).text
    assert "phantom" not in plain and "Research use only." in plain and "its card does not say" in plain


def test_calibration_is_said_where_it_holds(written: WrittenCase) -> None:
    severity = written.document.severity.model_copy(
        update={"calibrated": True, "calibration": "Calibrated on 300 scans."}
    )
    text = read_page(render_report(changed(written.document, severity=severity))).text
    assert "Calibrated on 300 scans." in text and "not calibrated" not in text


def test_whatever_stands_in_names_and_findings_is_escaped(written: WrittenCase) -> None:
    text = (written.folder / "report.html").read_text(encoding="utf-8")
    assert "case &lt;1&gt;" in text and "case <1>" not in text
    assert "slices of &lt;6&gt; mm &amp; more" in text
    assert "slices of <6> mm & more" in read_page(text).text


def test_the_patient_is_shown_only_when_given(written: WrittenCase) -> None:
    identity = Identity("Doe, Jane", "4711", "1950-02-01", None)
    text = read_page(render_report(written.document, None, identity)).text
    for shown in ("Doe, Jane", "4711", "1950-02-01", "not in the headers"):
        assert shown in text
    assert "Patient" not in read_page(render_report(written.document)).text.split("Research use only")[0]


def test_what_cannot_be_had_says_why_and_is_never_zero(written: WrittenCase) -> None:
    severity = SeverityPart(probability=None, spread=None, reason="the model does not classify severity")
    lobes = LobesPart(mask=None, codes={}, reason="the model does not segment lobes")
    page = read_page(render_report(changed(written.document, severity=severity, lobes=lobes)))
    assert "the model does not classify severity" in page.text
    assert page.text.count("the model does not segment lobes") >= 4
    assert page.text.count("not available") == 5
    assert not any(table[0][0] in ("Part", "Region") for table in page.tables)


def test_a_lobe_cut_off_or_absent_is_marked(written: WrittenCase) -> None:
    lobes = written.document.lobes
    cut = "runs out of the field of view at the feet end"
    volumes = tuple(
        part.model_copy(update={"partial": True, "reason": cut})
        if part.region == "LLL"
        else part.model_copy(update=dict.fromkeys(("volume_ml", "opacity_percent", "lobar_score")) | {"reason": "gone"})
        if part.region == "RML"
        else part
        for part in lobes.volumes
    )
    scores = tuple(
        s.model_copy(update={"total": None, "least": 3, "most": 7, "reason": "no score for x"}) for s in lobes.scores
    )
    document = changed(written.document, lobes=lobes.model_copy(update={"volumes": volumes, "scores": scores}))
    page = read_page(render_report(document))
    rows = {row[0]: row for row in next(table for table in page.tables if table[0][0] == "Part")[2:]}
    assert rows["LLL"][1].startswith("≥") and rows["RML"][1] == "–" and rows["RML"][11] == "–"
    said = " ".join(page.text.split())
    assert f"LLL: {cut}" in said and "RML: gone" in said
    assert "3–7" in page.text and "no score for x" in page.text


def test_every_picture_is_told_in_words(written: WrittenCase) -> None:
    page = read_page((written.folder / "report.html").read_text(encoding="utf-8"))
    (montage,) = page.images
    assert montage["alt"] and "RLL" in montage["alt"]
    text = (written.folder / "report.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<svg[^>]*role="img"[^>]*aria-label="[^"]+"', text)) == text.count("<svg")
    assert all("scope=" in tag for tag in re.findall(r"<th[ >][^>]*", text))


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [(1234.4, 0, "1\u202f234"), (-834.2, 0, "−834"), (-0.01, 1, "0.0"), (0.05, 2, "0.05"), (-12.34, 1, "−12.3")],
)
def test_figures_are_written_for_readers(number: float, digits: int, text: str) -> None:
    assert figure(number, digits) == text
