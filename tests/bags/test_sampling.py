"""Bags: where patches come from, what is in them, and how evenly they are spread."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import chisquare

from m2unet.bags.sampling import BagSource, LabelledSource, cut_patches, draw_bag
from m2unet.config import BagConfig
from tests.bags.conftest import MemoryScan, located


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_patch_shows_what_its_corner_says(scan: MemoryScan) -> None:
    bag = draw_bag(scan, BagConfig(size=40, patch=16), rng())
    assert bag.patches.shape == (40, 16, 16) and bag.patches.dtype == np.int16
    assert bag.lobes is not None and bag.lobes.dtype == np.uint8
    assert (bag.corners.dtype, len(bag), bag.scan_id, bag.severity) == (np.int32, 40, "scan", 1)
    for patch, lobes, (z, y, x) in zip(bag.patches, bag.lobes, bag.corners, strict=True):
        assert np.array_equal(patch, scan.array[z, y : y + 16, x : x + 16])
        assert np.array_equal(lobes, scan.lobes[z, y : y + 16, x : x + 16])  # type: ignore[index]


@pytest.mark.parametrize("size, counts", [(3, {1}), (5, {1}), (7, {1, 2}), (10, {2}), (1, {1})])
def test_slices_repeat_only_when_they_must(size: int, counts: set[int]) -> None:
    bag = draw_bag(located(5, 16, 16), BagConfig(size=size, patch=16), rng(size))
    seen = Counter(bag.corners[:, 0].tolist())
    assert set(seen.values()) == counts
    assert sum(seen.values()) == size


def test_slices_and_positions_are_uniform() -> None:
    scan = located(5, 20, 18)
    corners = np.concatenate([draw_bag(scan, BagConfig(size=3, patch=16), rng(s)).corners for s in range(1000)])
    for axis, values in enumerate((5, 5, 3)):
        counts = np.bincount(corners[:, axis], minlength=values)
        assert len(counts) == values
        assert chisquare(counts).pvalue > 1e-3


def test_a_small_slice_is_surrounded_by_air() -> None:
    scan = located(3, 10, 20)
    bag = draw_bag(scan, BagConfig(size=60, patch=16), rng())
    assert set(bag.corners[:, 1].tolist()) == set(range(-6, 1))
    assert set(bag.corners[:, 2].tolist()) == set(range(5))
    padded = np.pad(scan.array, ((0, 0), (16, 16), (0, 0)), constant_values=-1024)
    assert scan.lobes is not None and bag.lobes is not None
    padded_lobes = np.pad(scan.lobes, ((0, 0), (16, 16), (0, 0)))
    for patch, lobes, (z, y, x) in zip(bag.patches, bag.lobes, bag.corners, strict=True):
        assert np.array_equal(patch, padded[z, y + 16 : y + 32, x : x + 16])
        assert np.array_equal(lobes, padded_lobes[z, y + 16 : y + 32, x : x + 16])


def test_a_patch_beyond_every_edge_at_once() -> None:
    scan = located(1, 4, 6)
    patch = cut_patches(scan.array, np.array([[0, -5, -7]], dtype=np.int32), 16, fill=9)[0]
    assert np.array_equal(patch, np.pad(scan.array[0], ((5, 7), (7, 3)), constant_values=9))


def test_the_same_generator_state_draws_the_same_bag(scan: MemoryScan) -> None:
    config = BagConfig(size=9, patch=16)
    assert np.array_equal(draw_bag(scan, config, rng(4)).corners, draw_bag(scan, config, rng(4)).corners)
    assert not np.array_equal(draw_bag(scan, config, rng(4)).corners, draw_bag(scan, config, rng(5)).corners)


def test_the_reference_follows_the_configuration(scan: MemoryScan) -> None:
    def reference(position: str) -> np.ndarray | None:
        return draw_bag(scan, BagConfig(size=1, patch=16, position=position), rng()).reference  # type: ignore[arg-type]

    assert reference("none") is None
    assert np.array_equal(reference("body"), scan.references["body"])  # type: ignore[arg-type]
    assert np.array_equal(reference("lungs"), scan.references["lungs"])  # type: ignore[arg-type]
    scan.references["lungs"] = None
    assert np.array_equal(reference("lungs"), scan.references["body"])  # type: ignore[arg-type]


def test_a_scan_without_labels_gives_a_bag_without_them(scan: MemoryScan) -> None:
    plain = SimpleNamespace(array=scan.array, references=scan.references)
    assert isinstance(plain, BagSource) and not isinstance(plain, LabelledSource)
    bag = draw_bag(plain, BagConfig(size=2, patch=16), rng())
    assert (bag.severity, bag.lobes, bag.scan_id) == (-1, None, "")
    scan.lobes = None
    assert draw_bag(scan, BagConfig(size=2, patch=16), rng()).lobes is None
