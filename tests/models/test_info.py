"""``m2unet info`` and the table behind it."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from m2unet.cli.info import info
from m2unet.config import ModelConfig
from m2unet.errors import ModelError
from m2unet.models.registry import build_model, model_names
from m2unet.models.table import PAPER_BLOCKS, model_table
from tests.models.samples import small_model

APP = typer.Typer()
APP.command()(info)


def call(*arguments: str) -> str:
    result = CliRunner().invoke(APP, list(arguments), env={"COLUMNS": "160"}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def printed(figure: str) -> float:
    """The number the paper prints, in units of 1024."""
    return float(figure.removesuffix("K"))


def test_table_one_agrees_with_the_paper() -> None:
    table = model_table(build_model(ModelConfig()))
    assert [row.block for row in table.rows] == list(PAPER_BLOCKS)
    for row in table.rows:
        assert row.paper is not None
        assert row.parameters / 1024 == pytest.approx(printed(row.paper), abs=0.5 if printed(row.paper) > 1 else 0.06)
    assert table.parameters == sum(row.parameters for row in table.rows) == 4_015_241
    assert round(table.mib, 2) == table.paper_mib == 15.32
    assert table.paper_sizes


@pytest.mark.parametrize("name", model_names())
def test_rows_add_up(name: str) -> None:
    table = model_table(small_model(name))
    assert len(table.rows) > 2
    assert sum(row.parameters for row in table.rows) == table.parameters > 0
    assert not table.paper_sizes


def test_printed_table() -> None:
    text = call("--model", "m2unet")
    for words in ("4,015,241 parameters, 15.32 MiB", "paper: 15.32 MiB", "2,657,280", "2595K", "decoder 5", "406,080"):
        assert words in text
    assert "not the paper's sizes" not in text


def test_json() -> None:
    found = json.loads(call("--model", "seg_only", "--json"))
    assert (found["schema"], found["schema_version"]) == ("m2unet.model-table", 1)
    assert found["parameters"] == 3_768_071
    assert found["paper_mib"] == 14.37
    assert found["rows"][0] == {
        "block": "encoder 1",
        "layers": "cbr(1,64) cbr(64,64)",
        "parameters": 37_824,
        "paper": "37K",
    }


def test_overrides_change_the_network() -> None:
    text = call("--set", "model.width=16", "--set", "model.deep_width=32")
    assert "cbr(1,16) cbr(16,16)" in text
    assert "not the paper's sizes" in text


def test_other_networks_by_module() -> None:
    text = call("--model", "gated_mil", "--set", "model.width=8")
    assert "attention" in text and "paper" in text
    assert "GCP" not in text


def test_unknown_network() -> None:
    with pytest.raises(ModelError, match="vnet"):
        CliRunner().invoke(APP, ["--model", "vnet"], catch_exceptions=False)
