"""The benchmark of poolings: its readers, its networks, and a whole run on tiny bags."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch

from m2unet.models.pooling import GlobalContrastPooling

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "mil.py"


@pytest.fixture(scope="module")
def mil() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mil_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def table(bags: int = 24, seed: int = 0) -> np.ndarray:
    """Bag label, bag number, four features; a positive bag holds one instance far out along the first."""
    rng = np.random.default_rng(seed)
    rows = []
    for bag in range(bags):
        features = rng.normal(size=(rng.integers(1, 6), 4))
        features[0, 0] += 6 * (bag % 2)
        rows += [[bag % 2, bag + 1, *values] for values in features]
    return np.asarray(rows)


def write_csv(path: Path, rows: np.ndarray) -> Path:
    np.savetxt(path, rows, delimiter=",", fmt="%.6f")
    return path


def write_andrews(path: Path, rows: np.ndarray) -> Path:
    """Instance labels -1 and 1; features and labels sparse."""
    labels = scipy.sparse.csr_matrix(2 * rows[:, 0][None] - 1)
    features = scipy.sparse.csr_matrix(rows[:, 2:])
    scipy.io.savemat(path, {"features": features, "labels": labels, "bag_ids": rows[:, 1][None]})
    return path


def write_prtools(path: Path, rows: np.ndarray) -> Path:
    """The struct ``x``: labels 1 and 2 in ``nlab``, bag numbers in ``ident.milbag``."""
    x = {"data": rows[:, 2:], "nlab": rows[:, :1] + 1, "ident": {"milbag": rows[:, 1:2]}}
    scipy.io.savemat(path, {"x": x})
    return path


@pytest.mark.parametrize("write", [write_csv, write_andrews, write_prtools])
def test_every_layout_gives_the_same_bags(
    mil: ModuleType, tmp_path: Path, write: Callable[[Path, np.ndarray], Path]
) -> None:
    rows = table()
    shuffled = rows[np.random.default_rng(1).permutation(len(rows))]
    bags = mil.read_bags(write(tmp_path / ("b.csv" if write is write_csv else "b.mat"), shuffled))
    assert len(bags) == 24 and sorted(bags.labels) == [0] * 12 + [1] * 12
    found = {}
    for number, (label, size) in enumerate(zip(bags.labels, bags.sizes, strict=True)):
        one = bags.take(np.array([number])).features
        found[tuple(sorted(map(tuple, one.round(3).tolist())))] = (label, size)
    for bag in range(1, 25):
        mine = rows[rows[:, 1] == bag]
        key = tuple(sorted(map(tuple, mine[:, 2:].astype(np.float32).round(3).tolist())))
        assert found[key] == (mine[0, 0], len(mine))


def test_files_that_hold_no_bags(mil: ModuleType, tmp_path: Path) -> None:
    rows = table()
    scipy.io.savemat(tmp_path / "other.mat", {"y": rows})
    for path, said in (
        (write_csv(tmp_path / "flat.csv", rows[:, :2]), "found 2 columns"),
        (write_csv(tmp_path / "one.csv", rows[rows[:, 0] == 1]), "one label only"),
        (write_csv(tmp_path / "nan.csv", np.where(rows > 5, np.nan, rows)), "no numbers"),
        (tmp_path / "other.mat", "expected x, or features"),
    ):
        with pytest.raises(ValueError, match=said):
            mil.read_bags(path)


def test_real_musk1(mil: ModuleType, real_data: Path) -> None:
    bags = mil.read_bags(real_data / "mil" / "musk1.csv")
    assert (len(bags), int(bags.labels.sum()), *bags.features.shape) == (92, 47, 476, 166)  # as UCI describes it


def padded(mil: ModuleType) -> Any:
    rows = table()
    bags = mil.Bags(
        rows[:, 2:].astype(np.float32),
        np.unique(rows[:, 1], return_counts=True)[1],
        np.array([rows[rows[:, 1] == b][0, 0] for b in np.unique(rows[:, 1])], dtype=np.int64),
    )
    return bags, mil.to_tensors(bags, *mil.moments(bags))


def test_pooling_without_padding_is_the_pooling(mil: ModuleType) -> None:
    """Attention against our module on padded bags; mean and maximum against a loop over the bags."""
    _, tensors = padded(mil)
    real = torch.rand(len(tensors.instances), mil.WIDTH)
    parts = torch.split(real, tensors.mask.sum(1).tolist())
    network = mil.BagNetwork(4, "attention", 0.0)
    whole = torch.zeros(*tensors.mask.shape, mil.WIDTH)
    whole[tensors.mask] = real
    torch.testing.assert_close(network.pool(real, tensors.mask), network.attention(whole, tensors.mask)[0])
    for name, pooled in (
        ("mean", torch.stack([p.mean(0) for p in parts])),
        ("max", torch.stack([p.amax(0) for p in parts])),
    ):
        torch.testing.assert_close(mil.BagNetwork(4, name, 0.0).pool(real, tensors.mask), pooled)


@pytest.mark.parametrize("method", ["gcp", "attention", "max", "mean"])
def test_every_pooling_learns_bags_that_can_be_told_apart(mil: ModuleType, method: str) -> None:
    bags, _ = padded(mil)
    learn, test = bags.take(np.arange(16)), bags.take(np.arange(16, 24))
    scale = mil.moments(learn)
    parts = (mil.to_tensors(learn, *scale), mil.to_tensors(test, *scale))
    (logits,) = mil.train(parts, method, mil.Settings(0.01, 0.0), 0, [60])
    assert ((logits > 0).numpy() == (test.labels > 0)).mean() >= 0.75
    (again,) = mil.train(parts, method, mil.Settings(0.01, 0.0), 0, [60])
    assert torch.equal(logits, again)


def test_hyper_parameters_never_see_the_tested_bags(mil: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    bags, _ = padded(mil)
    seen: list[set[float]] = []

    def choose(learn: Any, *_: Any, **__: Any) -> Any:
        seen.append(set(learn.features[:, 1].tolist()))
        return mil.Settings(0.01, 0.0, 15)

    monkeypatch.setattr(mil, "choose", choose)
    accuracies, _ = mil.cross_validate(bags, "mean", 0, 3)
    assert len(accuracies) == 3
    for learned, (_, test_ids) in zip(seen, mil.folds(bags.labels, 3, 0), strict=True):
        assert not learned & set(bags.take(test_ids).features[:, 1].tolist())


def test_the_script_runs_and_goes_on_where_it_stopped(
    mil: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_csv(tmp_path / "tiny.csv", table()), tmp_path / "mil.json"
    call = ["mil.py", str(data), "--folds", "2", "--out", str(out), "--methods", "gcp", "mean", "--repeats"]
    monkeypatch.setattr(sys, "argv", [*call, "1"])
    mil.main()
    first = json.loads(out.read_text())["runs"]
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [*call, "2"])
    mil.main()
    second = json.loads(out.read_text())["runs"]
    printed = capsys.readouterr().out
    assert second[:2] == first and len(second) == 4
    assert "| tiny | gcp | 2 |" in printed and "seed 0:" not in printed and "seed 1:" in printed
    monkeypatch.setattr(sys, "argv", [*call, "2", "--no-relu"])
    with pytest.raises(ValueError, match="other settings"):
        mil.main()


def test_three_lines_of_python_pool_bags() -> None:
    """As the documentation shows it."""
    pool = GlobalContrastPooling(in_features=512, concepts=128)
    pooled = pool(torch.randn(4, 30, 512), mask=torch.arange(30) < torch.tensor([[30], [12], [1], [7]]))
    assert pooled.values.shape == pooled.winners.shape == (4, 128)
    assert (pooled.winners < torch.tensor([[30], [12], [1], [7]])).all()
