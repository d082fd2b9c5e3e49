"""Which trainings the tables rest on."""

from __future__ import annotations

import pytest

from m2unet.config import load_config
from m2unet.errors import ConfigError
from m2unet.paper.plan import NAMES, Experiment, bag_sizes, experiments, tables, wanted


def test_the_paper_needs_fourteen_trainings_a_fold() -> None:
    found = experiments(NAMES, load_config("paper"))
    assert len(found) == len(set(found)) == 10 + 4  # ten methods; four bag sizes besides the full one
    assert [e.method for e in found[-2:]] == ["tang", "yang"]
    assert {e.bag_size for e in found} == {None, 50, 80, 100, 150}


def test_bag_sizes_keep_the_papers_proportions() -> None:
    assert bag_sizes(load_config("paper")) == (50, 80, 100, 150, 200)
    assert bag_sizes(load_config("demo", ["bag.size=24"])) == (6, 10, 12, 18, 24)


def test_table_six_shares_its_last_row_with_cls_only() -> None:
    plans = tables(load_config("demo"))
    assert plans["table6"].rows[-1].experiment == Experiment("cls_only")
    assert plans["table6"].rows[-1].experiment in plans["table2"].experiments()


def test_a_table_alone_needs_only_its_own() -> None:
    config = load_config("demo")
    assert [e.key for e in experiments(["table7"], config)] == ["seg_only", "m2unet"]
    assert experiments(["table1", "figure2"], config) == ()
    assert {e.key for e in experiments(["figure6"], config)} == {"resnet50_max", "gated_mil", "cls_only", "m2unet"}


def test_networks_see_patches_alone_but_ours_with_position() -> None:
    for name, position in (("m2unet", False), ("unet", False), ("m2unet_position", True)):
        assert load_config("demo", Experiment(name).settings()).model.position is position
    small = load_config("paper", Experiment("cls_only", 50).settings())
    assert (small.bag.size, small.model.name) == (50, "cls_only")


def test_unknown_names_are_refused() -> None:
    assert wanted(()) == NAMES and wanted(["table3", "table1"]) == ("table1", "table3")
    with pytest.raises(ConfigError, match=r"table8.*table1"):
        wanted(["table8"])
