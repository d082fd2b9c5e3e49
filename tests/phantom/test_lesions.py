from __future__ import annotations

import numpy as np
import pytest

from m2unet.anatomy import LOBE_CODES
from m2unet.phantom.cohort import CohortPlan
from m2unet.phantom.disease import BAND, CONSOLIDATION
from m2unet.phantom.grid import Grid
from m2unet.phantom.lesions import survey
from m2unet.phantom.scan import Patient, make_patient


def grid_for(patient: Patient, step: float, offset: float = 0.0) -> Grid:
    low, high = patient.anatomy.lung_extent_mm
    return Grid.around((low[0] + offset, low[1] + offset, low[2] + offset), high, (step, step, step))


@pytest.fixture(scope="module")
def drawn(ill: Patient) -> tuple:
    """The peak of the illest patient on a 4 mm grid: tissues, HU before and after, mask."""
    grid = grid_for(ill, 4.0, 0.7)
    tissues = ill.anatomy.render(grid)
    after = tissues.hu.copy()
    mask = ill.lesions.on_day(ill.plan.disease.peak).apply(after, tissues, grid)
    return grid, tissues, after, mask


def test_extents_are_those_asked_for_on_another_grid(ill: Patient, drawn: tuple) -> None:
    _, tissues, _, mask = drawn
    peak = ill.plan.disease.peak
    for lobe, extent, dense in zip(LOBE_CODES, peak.extents, peak.dense, strict=True):
        inside = tissues.lobes == lobe
        patches = (mask[inside] > 0) & (mask[inside] != BAND)
        assert patches.mean() == pytest.approx(extent, abs=0.04)
        assert (mask[inside] == CONSOLIDATION).mean() == pytest.approx(dense, abs=0.04)


def test_lesions_stay_in_lobes_and_only_add_density(drawn: tuple) -> None:
    _, tissues, after, mask = drawn
    assert not mask[(tissues.lobes < 1) | (tissues.lobes > 5)].any()
    np.testing.assert_array_equal(
        after[(tissues.lobes < 1) | (tissues.lobes > 5)], tissues.hu[(tissues.lobes < 1) | (tissues.lobes > 5)]
    )
    assert (after >= tissues.hu - 1e-3).all()


def test_kinds_have_their_densities(drawn: tuple) -> None:
    _, tissues, after, mask = drawn
    lung = (tissues.lobes >= 1) & (tissues.lobes <= 5) & ~tissues.vessels
    healthy, glass, solid = (float(np.median(after[lung & (mask == kind)])) for kind in (0, 1, 2))
    assert healthy < -780
    assert -780 < glass < -400
    assert solid > -300
    assert solid < 100


def test_the_same_lesions_on_two_grids(ill: Patient) -> None:
    """A 2 mm grid sampled every second voxel holds the 4 mm grid's points: the masks must agree there."""
    day = ill.lesions.on_day(ill.plan.disease.peak)
    low, high = ill.anatomy.lung_extent_mm
    middle = 0.5 * (low[0] + high[0])
    fine = Grid.around((middle - 20, *low[1:]), (middle + 20, *high[1:]), (4.0, 2.0, 2.0))
    coarse = Grid((fine.shape[0], (fine.shape[1] + 1) // 2, (fine.shape[2] + 1) // 2), (4.0, 4.0, 4.0), fine.origin_mm)
    masks = []
    for grid in (fine, coarse):
        tissues = ill.anatomy.render(grid)
        masks.append(day.apply(tissues.hu, tissues, grid) > 0)
    first, second = masks[0][:, ::2, ::2], masks[1]
    dice = 2 * (first & second).sum() / (first.sum() + second.sum())
    assert second.sum() > 500
    assert dice > 0.9


def test_less_disease_lies_inside_more(ill: Patient) -> None:
    grid = grid_for(ill, 6.0)
    tissues = ill.anatomy.render(grid)
    disease = ill.plan.disease
    early = ill.lesions.on_day(disease.at(0.6 * disease.rise_days)).apply(tissues.hu.copy(), tissues, grid)
    peak = ill.lesions.on_day(disease.peak).apply(tissues.hu.copy(), tissues, grid)
    grown = np.isin(early, (1, 2, 3))
    assert 0 < grown.sum() < (peak > 0).sum()
    assert (peak[grown] > 0).all()


def test_lesions_are_mostly_peripheral_posterior_and_low(plan: CohortPlan) -> None:
    moderate = sorted(plan.patients, key=lambda patient: abs(patient.score - 18))[:3]
    depth, back, height = [], [], []
    for patient in map(make_patient, moderate):
        grid = grid_for(patient, 6.0)
        tissues = patient.anatomy.render(grid)
        mask = patient.lesions.on_day(patient.plan.disease.peak).apply(tissues.hu, tissues, grid)
        lung = (tissues.lobes >= 1) & (tissues.lobes <= 5)
        ill, well = lung & (mask > 0), lung & (mask == 0)
        z, y, _ = np.meshgrid(*grid.axes(), indexing="ij")
        depth.append(tissues.pleura_mm[ill].mean() / tissues.pleura_mm[well].mean())
        back.append(y[ill].mean() - y[well].mean())
        height.append(z[ill].mean() - z[well].mean())
    assert np.mean(depth) < 0.92
    assert np.mean(back) > 10
    assert np.mean(height) < -3


def test_a_grid_beside_the_lungs_is_left_alone(ill: Patient) -> None:
    grid = Grid((2, 5, 5), (2.0, 2.0, 2.0), (-200.0, 0.0, 0.0))
    tissues = ill.anatomy.render(grid)
    before = tissues.hu.copy()
    mask = ill.lesions.on_day(ill.plan.disease.peak).apply(tissues.hu, tissues, grid)
    assert not mask.any()
    np.testing.assert_array_equal(tissues.hu, before)
    assert survey(tissues, grid, {}) is None
