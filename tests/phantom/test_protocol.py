from __future__ import annotations

import numpy as np
import pytest

from m2unet.phantom.anatomy import Anatomy, draw_anatomy
from m2unet.phantom.cohort import lung_box
from m2unet.phantom.protocol import (
    PIXEL_MM,
    SITES,
    SLICES,
    SMALL_MATRIX,
    SMALL_SLICES,
    STEP_MM,
    Protocol,
    draw_protocol,
)
from m2unet.phantom.scanner import scan_grid


@pytest.fixture(scope="module")
def drawn() -> list[tuple]:
    """(lungs, paper protocol, small protocol) of 700 scans."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(700):
        lungs = lung_box(draw_anatomy(rng))
        seed, site = int(rng.integers(2**31)), index % len(SITES)
        pair = [draw_protocol(np.random.default_rng(seed), site, lungs, size) for size in ("paper", "small")]
        found.append((lungs, *pair))
    return found


def test_seven_sites_of_five_scanners() -> None:
    assert len(SITES) == 7
    assert len({site.name for site in SITES}) == 7
    assert len({site.scanner for site in SITES}) == 5
    assert sum(site.weight for site in SITES) == pytest.approx(1)
    assert len({site.padding for site in SITES}) >= 4
    assert len({site.flips for site in SITES}) >= 5


def test_paper_protocols_stay_in_the_papers_ranges(drawn: list[tuple]) -> None:
    for _, paper, _ in drawn:
        assert 512 <= paper.matrix <= 666
        assert PIXEL_MM[0] <= paper.pixel_mm <= PIXEL_MM[1]
        assert STEP_MM[0] <= paper.step_mm <= STEP_MM[1]
        assert SLICES[0] <= paper.slices <= SLICES[1]
        assert 0.6 <= paper.thickness_mm <= 10
    steps = [paper.step_mm for _, paper, _ in drawn]
    assert (min(steps), max(steps)) == STEP_MM


def test_small_protocols_are_the_same_with_fewer_voxels(drawn: list[tuple]) -> None:
    for _, paper, small in drawn:
        assert small.matrix == SMALL_MATRIX
        assert small.slices <= SMALL_SLICES
        assert small.fov_mm == pytest.approx(paper.fov_mm)
        assert (small.kernel, small.thickness_mm) == (paper.kernel, paper.thickness_mm)
        assert small.step_mm / paper.step_mm == pytest.approx(round(small.step_mm / paper.step_mm))


def covers(protocol: Protocol, low: float, high: float) -> bool:
    top = protocol.low_mm + (protocol.slices - 1) * protocol.step_mm
    return protocol.low_mm <= low and high <= top


def test_lungs_are_always_covered(drawn: list[tuple]) -> None:
    for lungs, paper, small in drawn:
        for protocol in (paper, small):
            assert covers(protocol, *lungs.z)
            grid = scan_grid(protocol)
            _, y, x = grid.axes()
            assert x[0] < lungs.x[0] < lungs.x[1] < x[-1]
            assert y[0] < lungs.y[0] < lungs.y[1] < y[-1]


def test_coverage_reaches_from_lungs_alone_to_neck_and_abdomen(drawn: list[tuple]) -> None:
    extra = [p.low_mm - lungs.z[0] for lungs, p, _ in drawn]
    assert max(extra) > -15
    assert min(extra) < -90


def test_the_plans_lung_box_holds_the_drawn_lungs() -> None:
    for seed in range(4):
        parameters = draw_anatomy(np.random.default_rng(seed))
        box, (low, high) = lung_box(parameters), Anatomy(parameters).lung_extent_mm
        for (near, far), first, last in zip((box.z, box.y, box.x), low, high, strict=True):
            assert near - 6 <= first
            assert last <= far + 6
