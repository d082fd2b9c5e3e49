"""The paper's figures as the method page quotes them."""

from __future__ import annotations

import pytest

from m2unet.config import load_config
from m2unet.models.table import PAPER_MIB
from m2unet.paper.plan import tables
from m2unet.paper.published import published


def test_every_table_and_figure_is_there() -> None:
    found = published()
    assert [t.number for t in found.tables.values()] == ["I", "II", "III", "IV", "V", "VI", "VII"]
    assert [f.number for f in found.figures.values()] == [2, 5, 6]


@pytest.mark.parametrize(
    ("table", "row", "metric", "cell"),
    [
        ("table2", "m2unet", "accuracy", "0.985 ± 0.005"),
        ("table2", "m2unet", "auc", "0.991 ± 0.010"),
        ("table2", "gated_mil", "f1", "0.906 ± 0.037"),
        ("table2", "resnet50_max", "accuracy", "0.924 ± 0.050"),
        ("table2", "yang", "recall", "0.750"),
        ("table3", "unetpp", "sen", "0.773 ± 0.038"),
        ("table6", "bag150", "f1", "0.935"),
        ("table7", "m2unet", "dsc", "0.785 ± 0.058"),
    ],
)
def test_figures_as_printed(table: str, row: str, metric: str, cell: str) -> None:
    assert published().tables[table].rows[row][metric].cell() == cell


def test_tables_agree_with_each_other() -> None:
    found = {name: table.rows for name, table in published().tables.items()}
    for row in found["table4"]:
        assert found["table4"][row] == found["table2"][row]
    assert found["table5"] == {row: found["table2"][row] for row in ("cls_only", "m2unet")}
    assert found["table7"] == {row: found["table3"][row] for row in ("seg_only", "m2unet")}
    # the last row of Table VI is Cls. only, as printed without deviations
    last, whole = found["table6"]["bag200"], found["table2"]["cls_only"]
    assert {name: s.mean for name, s in last.items()} == {name: whole[name].mean for name in last}
    assert {name: found["table3"][name]["size_mib"].mean for name in PAPER_MIB} == dict(PAPER_MIB)


def test_every_row_of_the_paper_has_ours() -> None:
    plans = tables(load_config("paper"))
    for name, plan in plans.items():
        assert set(published().tables[name].rows) <= {row.key for row in plan.rows}
        assert plan.baseline in {row.key for row in plan.rows}
