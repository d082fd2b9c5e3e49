"""Invented slabs: seeded, labelled rightly, and every kind of knob acts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from m2unet.config import WindowConfig
from m2unet.errors import RunError
from m2unet.phantom.randomised.anatomy import AnatomyKnobs, draw_wide_chest
from m2unet.phantom.randomised.disease import DiseaseKnobs, add_disease
from m2unet.phantom.randomised.pool import ChestPool, build_pool, draw_chest
from m2unet.phantom.randomised.samples import REACH, Knobs, Look, draw_samples, dress_slab, invent_slab
from m2unet.phantom.randomised.scanner import ScannerKnobs, scan_slab
from m2unet.phantom.randomised.space import FINE, Slab, SpaceKnobs, cut_slab
from m2unet.phantom.randomised.tissues import TissueKnobs, paint_tissues

WINDOW = WindowConfig(low_hu=-1200, high_hu=200)
IN_LUNGS = SpaceKnobs(
    beyond_share=0.0, thick_share=0.0, rotation_degrees=0, tilt_degrees=0, shift_mm=(0, 0), bend_mm=0, zoom=(1, 1)
)
QUIET = ScannerKnobs(
    table_share=0, metal_share=0, motion_share=0, thick_share=0, blur_share=0, sharp_share=0, noise_hu=(0, 0),
    streak_share=0, ring_share=0, cupping_share=0, scale=(1, 1), offset_hu=(0, 0), circle_share=0, cut_share=0,
)  # fmt: skip
HEALTHY = DiseaseKnobs(
    opacity_share=0, lobe_share=0, nodule_share=0, reticulation_share=0, effusion_share=0, gas_share=0
)


def slab_of(pool: ChestPool, number: int = 0) -> Slab:
    return cut_slab(pool[number], np.random.default_rng(3), IN_LUNGS)


def in_lungs(slab: Slab) -> np.ndarray:
    return (slab.lobes > 0) & (slab.lobes < 6)


def test_a_chest_depends_on_seed_and_number_alone(pool: ChestPool) -> None:
    alone = draw_chest(5, 1)
    assert np.array_equal(alone.hu, pool[1].hu) and np.array_equal(alone.maps, pool[1].maps)
    assert pool[0].hu.shape != pool[1].hu.shape or not np.array_equal(pool[0].hu, pool[1].hu)
    assert set(np.unique(pool[0].maps[0])) == set(range(7))


def test_pool_is_taken_up_and_another_refused(pool: ChestPool) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in pool.folder.iterdir()}
    again = build_pool(pool.folder, 2, 5)
    assert {p.name: p.stat().st_mtime_ns for p in again.folder.iterdir()} == before
    with pytest.raises(RunError, match="another pool"):
        build_pool(pool.folder, 2, 6)
    with pytest.raises(RunError, match="2 of 3"):
        ChestPool(pool.folder, 3)
    assert np.array_equal(ChestPool(pool.folder, 1, first=1)[0].hu, pool[1].hu)


def test_wide_chests_go_beyond_patients() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_wide_chest(rng) for _ in range(200)]
    fat = np.array([c.parameters.fat_mm for c in drawn])
    assert (fat > 25).mean() > 0.1 and (fat < 6).mean() > 0.1
    assert 0 < np.mean([c.parameters.missing_lobe > 0 for c in drawn]) < 0.12
    assert 0.2 < np.mean([c.inspiration < 1 for c in drawn]) < 0.6
    assert np.std([c.parameters.oblique_left.level for c in drawn]) > 0.04
    never = AnatomyKnobs(missing_share=0, obese_share=0, lean_share=0, breathed_out_share=0, arms_up_share=1)
    tame = [draw_wide_chest(rng, never) for _ in range(30)]
    assert all(c.parameters.missing_lobe == 0 and c.inspiration == 1 and c.parameters.arms_up for c in tame)


def test_samples_are_seeded_and_in_range(pool: ChestPool) -> None:
    one, same, other = (draw_samples(pool, 1, n, WINDOW) for n in (4, 4, 5))
    assert np.array_equal(one.images, same.images) and np.array_equal(one.labels, same.labels)
    assert not np.array_equal(one.images[:1], other.images[:1])
    count = len(one.images)
    assert one.images.shape == (count, 2 * REACH + 1, 160, 192) and one.labels.shape == (count, 160, 192)
    assert one.images.min() >= 0 and one.images.max() <= 1 and one.labels.max() <= 6
    assert np.all(np.diff(one.heights) > 0)


def test_right_is_right(pool: ChestPool) -> None:
    """x grows to the patient's left: right lobes lie in lower columns, whatever was drawn."""
    for number in range(12):
        samples = draw_samples(pool, 2, number, WINDOW)
        columns = np.arange(samples.labels.shape[2])
        right, left = np.isin(samples.labels, (1, 2, 3)), np.isin(samples.labels, (4, 5))
        if right.sum() > 200 and left.sum() > 200:
            assert (right * columns).sum() / right.sum() < (left * columns).sum() / left.sum()


def test_heights_follow_the_lungs(pool: ChestPool) -> None:
    chest = pool[0]
    rng = np.random.default_rng(1)
    for _ in range(5):
        slab = cut_slab(chest, rng, IN_LUNGS)
        lung = in_lungs(slab).any(axis=(1, 2))
        inside = (slab.height > -0.98) & (slab.height < 0.98)
        assert np.array_equal(lung[inside], np.ones(inside.sum(), bool))
        assert not lung[np.abs(slab.height) > 1.1].any()


def test_tissues_take_the_drawn_density(pool: ChestPool) -> None:
    slab = slab_of(pool)
    fat = np.abs(slab.hu + 102) < 1
    plain = TissueKnobs(
        fat=(-77, -77),
        lung=(-700, -700),
        gravity_hu_per_mm=(0, 0),
        mottle=(0, 0),
        no_fissure_share=1,
        emphysema_share=0,
        small_vessels=(0, 0),
    )
    paint_tissues(slab, np.random.default_rng(0), plain)
    assert abs(np.median(slab.hu[fat]) + 77) < 3
    assert abs(np.median(slab.hu[in_lungs(slab)]) + 700) < 25


def test_fissures_are_bright_when_drawn(pool: ChestPool) -> None:
    base = TissueKnobs(
        lung=(-900, -900), gravity_hu_per_mm=(0, 0), mottle=(0, 0), emphysema_share=0, bare_mm=(6, 6),
        fissure=(250, 250), fissure_mm=(1, 1), incomplete=(0, 0), small_vessels=(0, 0),
    )  # fmt: skip
    gain = []
    for none in (0.0, 1.0):
        slab = slab_of(pool)
        near = in_lungs(slab) & (slab.fissure_mm < 0.3) & (slab.pleura_mm > 6)
        paint_tissues(slab, np.random.default_rng(0), replace(base, no_fissure_share=none))
        gain.append(float(np.median(slab.hu[near])))
    assert gain[0] - gain[1] > 150


def test_disease_spares_or_fills_the_lung(pool: ChestPool) -> None:
    slab = slab_of(pool)
    before = slab.hu.copy()
    add_disease(slab, np.random.default_rng(0), HEALTHY)
    assert np.array_equal(slab.hu, before)
    total = replace(HEALTHY, opacity_share=1, extents=((0.99, 0.99),), extent_weights=(1.0,), ground_glass=(400, 400))
    lungs, lobes = in_lungs(slab), slab.lobes.copy()
    add_disease(slab, np.random.default_rng(0), total)
    assert (slab.hu[lungs] > before[lungs] + 150).mean() > 0.75
    assert np.array_equal(slab.hu[~lungs], before[~lungs]) and np.array_equal(slab.lobes, lobes)


def test_fluid_is_no_lung(pool: ChestPool) -> None:
    slab = slab_of(pool)
    lungs = in_lungs(slab)
    add_disease(slab, np.random.default_rng(0), replace(HEALTHY, effusion_share=1, effusion=(0.3, 0.3)))
    fluid = lungs & ~in_lungs(slab)
    assert fluid.any() and np.all((slab.hu[fluid] > -11) & (slab.hu[fluid] < 46))
    rows = np.arange(slab.hu.shape[1])[None, :, None] * np.ones(slab.hu.shape)
    assert rows[fluid].mean() > rows[in_lungs(slab)].mean()  # it lies behind


def test_a_quiet_scanner_changes_nothing_and_a_round_field_hides_labels(pool: ChestPool) -> None:
    slab = slab_of(pool)
    before = slab.hu.copy()
    scan_slab(slab, np.random.default_rng(0), QUIET)
    assert np.allclose(slab.hu, before)
    scan_slab(slab, np.random.default_rng(0), replace(QUIET, circle_share=1, circle_mm=(90, 90), padding_hu=(-2000,)))
    beyond = slab.hu == -2000
    assert 0.3 < beyond.mean() < 0.9 and not slab.lobes[beyond].any()


def test_noise_has_the_wanted_strength(pool: ChestPool) -> None:
    slab = slab_of(pool)
    before = slab.hu.copy()
    scan_slab(slab, np.random.default_rng(0), replace(QUIET, noise_hu=(50, 50)))
    assert abs(float((slab.hu - before).std()) - 50) < 5


def test_single_slices_see_themselves(pool: ChestPool) -> None:
    samples = draw_samples(pool, 0, 0, WINDOW, Knobs(single_share=1))
    assert np.array_equal(samples.images, np.repeat(samples.images[:, REACH : REACH + 1], 2 * REACH + 1, axis=1))


def test_thick_slices_are_averages_of_thin_ones(pool: ChestPool) -> None:
    knobs = replace(IN_LUNGS, thick_share=1.0, thick_step=(1.5, 1.5))
    thin = cut_slab(pool[0], np.random.default_rng(3), knobs)
    assert thin.fine == FINE and len(thin.hu) == FINE * knobs.slices and thin.step_mm == 2.0
    apart = np.diff(thin.height) * (pool[0].apex - pool[0].base) / 2 * 3
    assert np.allclose(apart, 1.5 * 6 / FINE, rtol=1e-4)
    thick = thin.thick()
    assert thick.fine == 1 and thick.hu.shape[0] == knobs.slices and thick.thick() is thick
    assert np.allclose(thick.hu[2], (thin.hu[6] + thin.hu[7] + thin.hu[8]) / 3, atol=1e-3)
    assert np.array_equal(thick.lobes[2], thin.lobes[7]) and thick.height[2] == thin.height[7]
    quiet = Look(TissueKnobs(), HEALTHY, QUIET)
    dressed = dress_slab(thin, np.random.default_rng(1), Knobs(look=quiet, calm_share=0))
    assert dressed.hu.shape == thick.hu.shape and dressed.sheet is not None and dressed.sheet.max() <= 1


def test_thick_slices_of_a_scan_stay_as_they_are(pool: ChestPool) -> None:
    scan = replace(pool[0], step_mm=8.0)  # a scan of 8 mm to fine-tune on
    straight = replace(IN_LUNGS, thick_share=1.0)
    slab = cut_slab(scan, np.random.default_rng(3), straight)
    assert slab.fine == 1
    levels = (slab.height + 1) / 2 * (scan.apex - scan.base) + scan.base
    assert np.allclose(np.diff(levels), 1, atol=1e-3) and np.allclose(levels, np.round(levels), atol=1e-3)


def test_invented_slabs_are_finite(pool: ChestPool) -> None:
    for number in range(6):
        assert np.isfinite(invent_slab(pool[number % 2], np.random.default_rng(number)).hu).all()


def test_fissures_are_told_where_they_are_painted(pool: ChestPool) -> None:
    tissues = TissueKnobs(no_fissure_share=0, incomplete=(0, 0), fissure=(300, 300), fissure_mm=(2, 2))
    look = Look(tissues, HEALTHY, QUIET)
    knobs = Knobs(space=IN_LUNGS, look=look, calm_share=0, edge_share=0, single_share=0)
    seen = draw_samples(pool, 1, 0, WINDOW, knobs)
    assert seen.fissures is not None and seen.fissures.shape == seen.labels.shape
    assert seen.fissures.any() and not seen.fissures[(seen.labels == 0) | (seen.labels == 6)].any()
    none = replace(look, tissues=replace(tissues, no_fissure_share=1))
    unseen = draw_samples(pool, 1, 0, WINDOW, replace(knobs, look=none))
    assert unseen.fissures is not None and not unseen.fissures.any()
    lobes = (seen.labels > 0) & (seen.labels < 6)
    middle = seen.images[:, REACH]
    assert np.median(middle[seen.fissures]) > np.median(middle[lobes & ~seen.fissures]) + 0.05
    own = draw_samples(pool, 1, 0, WINDOW, replace(knobs, look=replace(look, tissues=None)))
    assert own.fissures is None
