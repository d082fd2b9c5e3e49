"""Datasets of bags: reproducible whatever the loader does, and severe scans repeated as asked."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from torch.utils.data import DataLoader

from m2unet.bags.bag import Bag
from m2unet.bags.dataset import BagDataset, oversample
from m2unet.config import BagConfig
from m2unet.errors import ConfigError
from tests.bags.conftest import MemoryScan, located

CONFIG = BagConfig(size=4, patch=16)


class MemoryStore:
    """Scans of different depth, by name."""

    def open(self, scan_id: str) -> MemoryScan:
        scan = located(4 + int(scan_id[1:]), 40, 40)
        scan.scan_id = scan_id
        return scan


def first(bags: list[Bag]) -> Bag:
    return bags[0]


def dataset(ids: list[str], *, seed: int = 7, epoch: int = 0) -> BagDataset:
    return BagDataset(MemoryStore(), ids, CONFIG, seed=seed, epoch=epoch)


def same(a: Bag, b: Bag) -> bool:
    return a.scan_id == b.scan_id and np.array_equal(a.patches, b.patches) and np.array_equal(a.corners, b.corners)


def test_each_repetition_and_epoch_and_seed_draws_anew() -> None:
    ids = ["s0", "s1", "s0"]
    bags = [dataset(ids)[0], dataset(ids)[2], dataset(ids, epoch=1)[0], dataset(ids, seed=8)[0]]
    assert all(bag.scan_id == "s0" for bag in bags)
    assert len({bag.corners.tobytes() for bag in bags}) == 4
    assert len(dataset(ids)) == 3


def test_a_bag_does_not_depend_on_what_was_drawn_before() -> None:
    ids = ["s0", "s1", "s2", "s1"]
    forward = [dataset(ids)[i] for i in range(4)]
    one = dataset(ids)
    backward = {i: one[i] for i in (3, 1, 0, 2)}
    assert all(same(forward[i], backward[i]) for i in range(4))


def test_repeating_a_scan_leaves_the_other_bags_alone() -> None:
    assert same(dataset(["s0", "s1"])[1], dataset(["s0", "s0", "s0", "s1"])[3])


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_loader_workers_gives_the_same_bags(workers: int) -> None:
    ids = ["s0", "s1", "s1", "s2"]
    alone = [dataset(ids)[i] for i in range(4)]
    loaded = list(DataLoader(dataset(ids), batch_size=1, num_workers=workers, collate_fn=first))
    assert all(same(a, b) for a, b in zip(alone, loaded, strict=True))


IDS = [f"s{i}" for i in range(12)]
SEVERITY = [1, 0, 0, 1, 0, 0, 0, 1, 0, 0, None, -1]  # three severe, seven non-severe, two unknown


def test_balance_repeats_severe_scans_until_there_are_as_many() -> None:
    repeated = oversample(IDS, SEVERITY, "balance")
    counts = Counter(repeated)
    assert sorted(counts[s] for s in ("s0", "s3", "s7")) == [2, 2, 3]
    assert all(counts[s] == 1 for s in IDS if s not in ("s0", "s3", "s7"))
    assert repeated == oversample(IDS, SEVERITY, "balance")
    assert list(dict.fromkeys(repeated)) == IDS
    chosen = {
        next(s for s, n in Counter(oversample(IDS, SEVERITY, "balance", seed=k)).items() if n == 3) for k in range(20)
    }
    assert chosen == {"s0", "s3", "s7"}


@pytest.mark.parametrize("factor, copies", [(1, 3), (2, 6), (2.5, 8), (4.0, 12)])
def test_a_factor_repeats_by_that_factor(factor: float, copies: int) -> None:
    counts = Counter(oversample(IDS, SEVERITY, factor))
    assert sum(counts[s] for s in ("s0", "s3", "s7")) == copies
    assert sum(counts.values()) == copies + 9


def test_nothing_is_ever_left_out() -> None:
    assert oversample(IDS, SEVERITY, "none") == IDS
    assert oversample(["a", "b", "c"], [1, 1, 0], "balance") == ["a", "b", "c"]
    assert oversample(["a"], [0], "balance") == ["a"]
    assert oversample([], [], "balance") == []
    with pytest.raises(ConfigError, match=r"0\.5"):
        oversample(IDS, SEVERITY, 0.5)
