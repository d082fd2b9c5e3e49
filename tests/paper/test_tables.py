"""Tables made of outcomes worked out by hand, and their tests against SciPy and scikit-learn."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from m2unet.config import load_config
from m2unet.evaluation.comparison import delong_test
from m2unet.paper import differences
from m2unet.paper.build import architecture_table, comparisons, method_table
from m2unet.paper.differences import compare
from m2unet.paper.outcome import Outcome, ScanResult, Setting
from m2unet.paper.page import render_page, table_section
from m2unet.paper.plan import tables
from m2unet.paper.render import to_csv, to_latex, to_markdown

SETTING = Setting("twelve invented scans", "2 of 5 folds", ("3 folds are missing.",))
PLANS = tables(load_config("demo"))


def outcome(shift: float, seed: int, lobes: bool = True) -> Outcome:
    """Two folds of thirty scans of fifteen patients."""
    rng = np.random.default_rng(seed)
    scans = []
    for number in range(30):
        severe = number % 3 == 0
        probability = float(np.clip(rng.normal(0.45 + shift * severe, 0.15), 0, 1))
        dsc = float(np.clip(rng.normal(0.7 + shift / 10, 0.05), 0, 1))
        overlap = {"dsc": dsc, "sen": dsc, "ppv": dsc} if lobes else {}
        scans.append(ScanResult(f"s{number:02}", f"p{number % 15}", number % 2, int(severe), probability, overlap))
    folds = {
        0: {"accuracy": 0.8, "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "auc": 0.9, "dsc": 0.70, "sen": 0.6},
        1: {"accuracy": 0.9, "precision": None, "recall": 0.0, "f1": 0.0, "auc": 0.7, "dsc": 0.80, "sen": 0.6},
    }
    return Outcome(folds, scans, size_mib=0.45, full_size_mib=15.317)


def test_cells_are_mean_and_deviation_beside_the_papers() -> None:
    table = method_table(PLANS["table2"], {"m2unet": outcome(0.3, 0)}, SETTING)
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(to_csv(table)))}
    ours = rows["M²UNet"]
    assert ours["accuracy"] == "0.850 ± 0.071" and ours["auc"] == "0.800 ± 0.141"
    assert ours["precision"] == "0.500 (1 of 2)" and ours["paper_auc"] == "0.991 ± 0.010"
    assert rows["Tang et al."]["accuracy"] == "–" and rows["Tang et al."]["paper_accuracy"] == "0.875"
    assert rows["M²UNet with position (ours)"]["paper_auc"] == "–"
    header = to_csv(table).splitlines()[0].split(",")
    assert header[:6] == ["method", "accuracy", "precision", "recall", "f1", "auc"]


def test_size_columns() -> None:
    table = method_table(PLANS["table3"], {"m2unet": outcome(0.3, 0)}, SETTING)
    row = next(r for r in csv.DictReader(io.StringIO(to_csv(table))) if r["method"] == "M²UNet")
    assert (row["size_mib"], row["full_size_mib"], row["paper_size_mib"]) == ("0.45", "15.32", "15.32")
    assert row["dsc"] == "0.750 ± 0.071" and row["ppv"] == "–" and row["paper_dsc"] == "0.785 ± 0.058"


def test_every_table_says_on_which_data() -> None:
    for plan in PLANS.values():
        table = method_table(plan, {}, SETTING)
        for text in (to_markdown(table), to_latex(table)):
            assert "twelve invented scans" in text and "666 chest CTs" in text and "3 folds are missing" in text


def test_table_one_counts_the_network() -> None:
    table = architecture_table()
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert sum(int(row["parameters"]) for row in rows[:-1]) == int(rows[-1]["parameters"]) == 4_015_241
    assert {row["method"] for row in rows} == {"M²UNet"}
    assert rows[0]["size"] == "36.9K" and rows[0]["paper_size"] == "37K"
    assert rows[-1]["size"] == "15.317 MiB" and rows[-1]["paper_size"] == "15.32 MiB"


def test_each_figure_has_its_test() -> None:
    first, second = outcome(0.05, 1), outcome(0.4, 2)
    found = {c.metric: c for c in compare(("a", first), ("b", second), ["auc", "accuracy", "dsc", "size_mib"])}
    assert set(found) == {"auc", "accuracy", "dsc"}
    truth = [s.severity for s in first.scans]
    areas = [roc_auc_score(truth, [s.probability for s in o.scans]) for o in (first, second)]
    assert found["auc"].difference.difference == pytest.approx(areas[1] - areas[0])
    by_hand = delong_test(
        truth,
        [s.probability for s in first.scans],
        [s.probability for s in second.scans],
        [s.patient_id for s in first.scans],
    )
    assert found["auc"].difference.p_value == pytest.approx(by_hand.p_value) and found["auc"].patients == 15
    assert (found["accuracy"].difference.method, found["dsc"].difference.method) == ("permutation", "sign-flip")
    few = {c.metric: c for c in compare(("a", Outcome({}, first.scans[:4])), ("b", second), ["auc"])}
    assert few["auc"].difference.method == "permutation"  # too few patients for DeLong's test
    gaps = [b.overlap["dsc"] - a.overlap["dsc"] for a, b in zip(first.scans, second.scans, strict=True)]
    assert found["dsc"].difference.difference == pytest.approx(np.mean(gaps))
    low, high = found["dsc"].difference.low, found["dsc"].difference.high
    assert low is not None and high is not None and low < np.mean(gaps) < high


def test_the_interval_has_the_width_of_the_patients_mean() -> None:
    """With two scans a patient that agree, the interval is that of fifteen independent values."""
    rng = np.random.default_rng(5)
    gaps = rng.normal(0.02, 0.05, size=15)
    one = [ScanResult(f"s{n}", f"p{n % 15}", 0, 1, None, {"dsc": 0.6}) for n in range(30)]
    two = [ScanResult(f"s{n}", f"p{n % 15}", 0, 1, None, {"dsc": 0.6 + gaps[n % 15]}) for n in range(30)]
    (found,) = compare(("a", Outcome({}, one)), ("b", Outcome({}, two)), ["dsc"])
    expected = 2 * 2.145 * gaps.std(ddof=1) / np.sqrt(15)  # Student's t of 14 degrees of freedom
    assert found.difference.low is not None and found.difference.high is not None
    assert found.difference.high - found.difference.low == pytest.approx(expected, rel=1e-3)


def test_scans_are_paired_by_name_not_by_place() -> None:
    first = outcome(0.3, 3)
    turned = Outcome(first.folds, first.scans[::-1])
    (found,) = compare(("a", first), ("b", turned), ["accuracy"])
    assert found.difference.difference == 0 and found.scans == 30
    part = Outcome(first.folds, first.scans[:10])
    assert compare(("a", first), ("b", part), ["accuracy"])[0].scans == 10
    assert compare(("a", first), ("b", Outcome(first.folds, [])), ["accuracy", "dsc"]) == []


def test_each_row_is_tested_against_the_baseline() -> None:
    found = comparisons(PLANS["table5"], {"cls_only": outcome(0.2, 1), "m2unet": outcome(0.3, 2)})
    assert {(c.first, c.second) for c in found} == {("Cls. only", "M²UNet")}
    rows = list(csv.DictReader(io.StringIO(differences.to_csv(found))))
    assert [row["metric"] for row in rows] == ["accuracy", "precision", "recall", "f1", "auc"]
    assert rows[-1]["test"].startswith("DeLong")
    assert comparisons(PLANS["table5"], {"cls_only": outcome(0.2, 1)}) == []


def test_page_escapes_and_holds_all() -> None:
    sections = [table_section(method_table(plan, {"m2unet": outcome(0.3, 0)}, SETTING), []) for plan in PLANS.values()]
    page = render_page(sections, Setting("<script>", "x"), "footer")
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert all(f'id="table{number}"' in page for number in range(2, 8))
    assert "http" not in page.replace("http-equiv", "")


def test_latex_is_complete() -> None:
    text = to_latex(method_table(PLANS["table3"], {"m2unet": outcome(0.3, 0)}, SETTING))
    assert text.count("{") == text.count("}") and r"M$^2$UNet" in text and r"full\_size\_mib" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.count("&") for line in rows}) == 1 and "±" not in text and "–" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(tmp_path: Path) -> None:
    body = "".join(to_latex(method_table(plan, {"m2unet": outcome(0.3, 0)}, SETTING)) for plan in PLANS.values())
    source = rf"\documentclass{{article}}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "t.tex").write_text(source, encoding="utf-8")
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)
