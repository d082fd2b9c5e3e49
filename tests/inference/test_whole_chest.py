"""The whole-chest path: working grid and back, height of slices, edge of the lungs, refusal of what is no chest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from m2unet.config import load_config
from m2unet.ct.findings import QualityError
from m2unet.ct.volume import Volume, from_source
from m2unet.inference.chest_grid import ChestGrid, to_chest_grid
from m2unet.inference.chest_height import LUNG_MM, fit_heights
from m2unet.inference.lung_edge import EdgeConfig, lobes_on_volume
from m2unet.inference.whole_chest import ChestScores, check_chest, score_chest
from m2unet.models.chest_unet import UNKNOWN_HEIGHT, ChestUNet, height_channel


def chest(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> tuple[Volume, np.ndarray]:
    """A soft cylinder with two air-filled lungs, and their true mask (1 right, 4 left)."""
    z, y, x = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"
    )
    array = np.full(shape, -1000, np.int16)
    array[(x / 170) ** 2 + (y / 110) ** 2 < 1] = 40
    mask = np.zeros(shape, np.uint8)
    for side, code in ((-1, 1), (1, 4)):
        mask[((x - side * 75) / 58) ** 2 + (y / 80) ** 2 + (z / 110) ** 2 < 1] = code
    array[mask > 0] = -860
    return from_source(array, spacing), mask


def scores_of(grid: ChestGrid, mask: np.ndarray) -> ChestScores:
    """Perfect but coarse scores: the mask subsampled to the working grid."""
    y0, y1, x0, x1 = grid.window
    cut = mask[:, y0:y1, x0:x1]
    coarse = zoom(
        cut, [a / b for a, b in zip(grid.hu.shape, cut.shape, strict=True)], order=0, grid_mode=True, mode="nearest"
    )
    scores = np.stack([coarse == code for code in range(7)]).astype(np.float16)
    return ChestScores(grid, scores, None)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_working_grid_has_its_spacing_and_keeps_the_mean() -> None:
    volume, _ = chest((60, 200, 240), (4.0, 1.5, 1.6))
    grid = to_chest_grid(volume)
    assert grid.hu.shape[0] == 80 and grid.step_mm == 3.0
    y0, y1, x0, x1 = grid.window
    assert abs(grid.hu.mean() - volume.array[:, y0:y1, x0:x1].mean()) < 8
    lengths = np.array(grid.hu.shape[1:]) * 2.0
    assert np.all(np.abs(lengths - ((y1 - y0) * 1.5, (x1 - x0) * 1.6)) < 2.01)


def test_levels_lie_where_the_slices_do() -> None:
    volume, _ = chest((30, 60, 80), (4.0, 4.0, 4.0))
    grid = to_chest_grid(volume)
    for z in range(30):
        low, high, share = grid.levels(z)
        middle = ((1 - share) * low + share * high + 0.5) * grid.step_mm
        assert abs(middle - (z + 0.5) * 4.0) < 1.01  # held at the ends


def test_thick_slices_are_worked_on_one_by_one() -> None:
    volume, _ = chest((30, 60, 80), (8.0, 4.0, 4.0))
    grid = to_chest_grid(volume)
    assert len(grid.hu) == 30 and grid.step_mm == 8.0 and grid.neighbour == 1
    y0, y1, x0, x1 = grid.window
    for z in (0, 7, 29):
        assert abs(grid.hu[z].mean() - volume.array[z, y0:y1, x0:x1].mean()) < 8
        low, high, weight = grid.levels(z)
        assert (1 - weight) * low + weight * high == z
    thin = to_chest_grid(chest((30, 60, 80), (4.0, 4.0, 4.0))[0])
    assert len(thin.hu) == 40 and thin.neighbour == 2


def test_one_slice_is_enough_for_a_grid() -> None:
    volume, _ = chest((2, 120, 150), (0.5, 2.5, 2.5))
    assert to_chest_grid(volume).hu.shape[0] == 1


def test_edge_comes_from_the_scan() -> None:
    volume, mask = chest((50, 300, 360), (4.0, 1.0, 1.0))
    found = scores_of(to_chest_grid(volume), mask)
    raw = lobes_on_volume(volume, found, EdgeConfig(refine=False))
    refined = lobes_on_volume(volume, found)
    assert dice(refined > 0, mask > 0) > max(0.99, dice(raw > 0, mask > 0) + 0.005)
    assert dice(refined == 1, mask == 1) > 0.99 and dice(refined == 4, mask == 4) > 0.99


def test_consolidation_is_not_cut_away() -> None:
    volume, mask = chest((50, 240, 300), (4.0, 1.25, 1.25))
    filled = volume.array.copy()
    filled[mask == 4] = 30  # the left lung holds no air
    volume = from_source(filled, volume.spacing_mm)
    found = scores_of(to_chest_grid(volume), mask)
    refined = lobes_on_volume(volume, found)
    assert dice(refined == 4, mask == 4) > 0.97 and dice(refined == 1, mask == 1) > 0.98


def places(heights: np.ndarray) -> np.ndarray:
    return np.stack([heights, np.full_like(heights, -2.0)], axis=1).astype(np.float32)


def test_height_is_a_line_in_spite_of_outliers() -> None:
    z = np.arange(100) * 3.0
    truth = 2 * (z - 40) / 230 - 1
    seen = truth + np.random.default_rng(0).normal(0, 0.05, 100)
    seen[::9] += 1.0
    fit = fit_heights(places(seen), np.full(100, 100.0, np.float32), 3.0)
    assert fit is not None and fit.measured
    assert abs(fit.lungs_mm - 230) < 12 and np.abs(fit.heights - truth).max() < 0.1


def test_what_is_cut_off_is_counted_in() -> None:
    """A scan of the upper half alone is placed in the upper half."""
    z = np.arange(45) * 3.0
    truth = 2 * (z + 130) / 265 - 1
    fit = fit_heights(places(truth), np.full(45, 80.0, np.float32), 3.0)
    assert fit is not None and np.abs(fit.heights - truth).max() < 0.05


def test_ends_that_are_seen_are_taken_from_the_lungs() -> None:
    """However timid the network is about heights, whole lungs run from -1 to 1."""
    area = np.zeros(120, np.float32)
    area[20:111] = 100.0
    timid = places(0.3 * np.linspace(-1, 1, 120))
    fit = fit_heights(timid, area, 3.0)
    assert fit is not None and fit.ends == 2 and fit.lungs_mm == pytest.approx(270)
    assert fit.heights[[20, 110]] == pytest.approx([-1, 1], abs=1e-5)
    above = fit_heights(timid[60:], area[60:], 3.0)  # the base is cut off
    assert above is not None and above.ends == 1 and above.heights[50] == pytest.approx(1)


def test_low_scans_take_the_usual_height_and_none_without_lung() -> None:
    fit = fit_heights(places(np.array([0.2, 0.21])), np.full(2, 150.0, np.float32), 3.0)
    assert fit is not None and not fit.measured and fit.lungs_mm == pytest.approx(LUNG_MM)
    assert fit_heights(places(np.zeros(5)), np.zeros(5, np.float32), 3.0) is None


def test_unknown_height_has_a_value_of_its_own() -> None:
    images = torch.rand(3, 5, 32, 32)
    out = height_channel(images, torch.tensor([0.5, float("nan"), 9.0]))
    assert out.shape == (3, 6, 32, 32) and torch.equal(out[:, :5], images)
    assert [float(plane.unique()) for plane in out[:, 5]] == [0.25, UNKNOWN_HEIGHT, 1.5]


def test_an_untrained_network_finds_no_chest_or_says_so() -> None:
    """Of a head (a ball of bone and brain) nothing is lung: a network that calls all background refuses it."""
    config = load_config("synthetic", ["model.width=4"])
    network = ChestUNet(config.model).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
        network.head.bias[:4] = 5.0  # background, for each of a block's four pixels
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (50, 70, 60)), indexing="ij")
    head = np.where(z**2 + y**2 + x**2 < 0.8, 35, -1000).astype(np.int16)
    volume = from_source(head, (4.0, 3.0, 3.0))
    found = score_chest(network, volume, config)
    assert found.lung_ml == 0 and found.height is None
    with pytest.raises(QualityError, match="lungs-absent"):
        check_chest(found, ())
    flat = score_chest(network, from_source(head[20:30], (4.0, 3.0, 3.0)), config)
    assert [f.level for f in check_chest(flat, ())] == ["warning"]
