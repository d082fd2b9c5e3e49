"""Fold means and their tables."""

from __future__ import annotations

import io
import json
import statistics

import pandas as pd
import pytest

from m2unet.errors import M2UNetError
from m2unet.evaluation.summary import DASH, ResultsTable, Spread, spread, summarise_folds


def test_mean_and_sample_deviation() -> None:
    values = [0.9, 0.95, 1.0, 0.85, 0.97]
    found = spread(values)
    assert found.mean == pytest.approx(statistics.mean(values))
    assert found.sd == pytest.approx(statistics.stdev(values))
    assert found.cell() == f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def test_undefined_folds_are_left_out_and_told() -> None:
    found = spread([0.8, None, 0.6, float("nan")])
    assert found == Spread(mean=pytest.approx(0.7), sd=pytest.approx(0.1414, abs=1e-4), folds=4, undefined=2)
    assert found.cell(2) == "0.70 ± 0.14 (2 of 4)"
    assert spread([0.5]).cell() == "0.500"
    assert spread([None, None]).cell() == DASH and spread([None]).sd is None


def test_a_figure_missing_from_a_fold_counts_as_undefined() -> None:
    found = summarise_folds([{"auc": 0.9, "f1": 0.5}, {"auc": 0.8}])
    assert list(found) == ["auc", "f1"]
    assert found["f1"] == Spread(0.5, None, 2, 1)
    with pytest.raises(M2UNetError, match="no fold"):
        summarise_folds([])


def test_tables_in_every_form() -> None:
    rows = {"M²UNet": summarise_folds([{"auc": 0.9}, {"auc": 0.8}]), "a|b": {"f1": spread([None])}}
    table = ResultsTable(("auc", "f1"), rows)
    lines = table.to_markdown().splitlines()
    assert lines[0] == "| method | auc | f1 |"
    assert lines[2] == f"| M²UNet | 0.850 ± 0.071 | {DASH} |"
    assert lines[3] == f"| a\\|b | {DASH} | {DASH} |"
    back = pd.read_csv(io.StringIO(table.to_csv()))
    assert list(back.columns) == ["method", "auc_mean", "auc_sd", "auc_folds", "f1_mean", "f1_sd", "f1_folds"]
    assert back.loc[0, "auc_mean"] == pytest.approx(0.85) and back.loc[0, "auc_folds"] == 2
    assert back["f1_mean"].isna().all() and back["f1_folds"].tolist() == [0, 0]
    assert json.loads(json.dumps(table.to_dict(), allow_nan=False))["rows"]["M²UNet"]["auc"]["folds"] == 2
