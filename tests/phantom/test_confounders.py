from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from m2unet.phantom.confounders import (
    PROBABILITY,
    ConfounderModel,
    Confounders,
    breathe,
    draw_confounders,
    place_confounders,
)
from m2unet.phantom.grid import Grid, Tissues
from m2unet.phantom.scan import Patient


@pytest.fixture(scope="module")
def chest(ill: Patient) -> tuple[Grid, Tissues]:
    grid = Grid.around(*ill.anatomy.lung_extent_mm, (5.0, 5.0, 5.0))
    return grid, ill.anatomy.render(grid)


def change(chest: tuple[Grid, Tissues], strengths: Confounders) -> tuple[ConfounderModel, np.ndarray]:
    grid, tissues = chest
    model = place_confounders(strengths, tissues, grid, np.random.default_rng(4))
    after = tissues.hu.copy()
    model.apply(after, tissues, grid, strengths)
    return model, after - tissues.hu


def test_shares_of_patients_and_scans() -> None:
    rng = np.random.default_rng(0)
    patients = [draw_confounders(rng) for _ in range(3000)]
    for name in ("atelectasis", "emphysema", "nodules", "scars"):
        share = np.mean([getattr(patient, name) > 0 for patient in patients])
        assert share == pytest.approx(PROBABILITY[name], abs=0.03)
    moving = np.mean([patient.with_scan(rng).motion > 0 for patient in patients])
    assert moving == pytest.approx(PROBABILITY["motion"], abs=0.03)


def test_nothing_changes_without_confounders(chest: tuple[Grid, Tissues]) -> None:
    _, change_hu = change(chest, Confounders())
    assert not change_hu.any()


def test_atelectasis_is_a_dependent_band(chest: tuple[Grid, Tissues]) -> None:
    grid, tissues = chest
    _, gain = change(chest, Confounders(atelectasis=1.0))
    y = np.broadcast_to(grid.axes()[1][:, None], grid.shape)
    strong = gain > 150
    assert strong.any()
    assert y[strong].min() > np.median(y[tissues.lobes > 0])
    assert (gain >= 0).all()


def test_emphysema_empties_the_upper_lung_most(chest: tuple[Grid, Tissues]) -> None:
    grid, tissues = chest
    _, gain = change(chest, Confounders(emphysema=0.3))
    lung = (tissues.lobes >= 1) & (tissues.lobes <= 5)
    upper = lung & (np.arange(grid.shape[0]) > 0.6 * grid.shape[0])[:, None, None]
    lower = lung & (np.arange(grid.shape[0]) < 0.4 * grid.shape[0])[:, None, None]
    assert (gain <= 0).all()
    assert (gain[upper] < -20).mean() > 2 * (gain[lower] < -20).mean()


def test_nodules_and_scars(chest: tuple[Grid, Tissues]) -> None:
    _, tissues = chest
    model, gain = change(chest, Confounders(nodules=4, scars=3))
    assert len(model.spots) == 7
    assert all(scar.centre_mm[0] > model.base_mm + 0.7 * model.height_mm for scar in model.spots[4:])
    assert (gain > 0).any()
    assert not gain[(tissues.lobes < 1) | (tissues.lobes > 5)].any()


def test_a_spot_outside_the_grid_is_not_drawn(chest: tuple[Grid, Tissues], ill: Patient) -> None:
    model, _ = change(chest, Confounders(nodules=1))
    grid = Grid((2, 4, 4), (2.0, 2.0, 2.0), (-150.0, 0.0, 0.0))
    tissues = ill.anatomy.render(grid)
    before = tissues.hu.copy()
    model.apply(tissues.hu, tissues, grid, Confounders(nodules=1, atelectasis=1.0))
    np.testing.assert_array_equal(tissues.hu, before)


def test_no_lungs_no_spots(chest: tuple[Grid, Tissues]) -> None:
    grid, tissues = chest
    empty = replace(tissues, lobes=np.zeros_like(tissues.lobes))
    model = place_confounders(Confounders(nodules=3, scars=2), empty, grid, np.random.default_rng(0))
    assert model.spots == ()


def test_breathing_doubles_contours_below_and_spares_the_apex() -> None:
    grid = Grid((10, 20, 6), (25.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    hu = np.full(grid.shape, -850, np.float32)
    hu[:, :8] = 40
    still = hu.copy()
    breathe(hu, grid, 1.0, 0.0, 200.0)
    assert (hu[0] != still[0]).any()
    assert -850 < hu[0, 8, 0] < 40
    np.testing.assert_array_equal(hu[-1], still[-1])
