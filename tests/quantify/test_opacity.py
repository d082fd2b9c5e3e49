"""Opacity against known lesions, and bands against a count by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from m2unet.anatomy import LOBE_CODES
from m2unet.errors import M2UNetError
from m2unet.quantify.boxes import Part
from m2unet.quantify.opacity import (
    CONSOLIDATION,
    GROUND_GLASS,
    OpacityConfig,
    OpacityQuantity,
    dense_cut,
    opacity_percents,
    quantify_opacity,
    segment_opacity,
)

from .conftest import Chest, make_chest


def dice(left: np.ndarray, right: np.ndarray) -> float:
    return 2 * float(np.sum(left & right)) / float(left.sum() + right.sum())


def test_bands_by_hand() -> None:
    hu = np.array([-1000, -951, -950, -701, -700, -301, -300, 60], np.int16).reshape(1, 2, 4)
    opacity = np.array([0, 0, 0, 0, 1, 1, 2, 2], np.uint8).reshape(1, 2, 4)
    found = quantify_opacity(hu, np.full(hu.shape, 3, np.uint8), opacity, 0.5)["RLL"]
    assert (found.emphysema_ml, found.aerated_ml) == (1.0, 1.0)
    assert (found.ground_glass_band_ml, found.consolidation_band_ml) == (1.0, 1.0)
    assert (found.ground_glass_ml, found.consolidation_ml, found.opacity_ml) == (1.0, 1.0, 2.0)
    assert (found.ground_glass_percent, found.consolidation_percent, found.opacity_percent) == (25, 25, 50)
    assert found.mean_hu == pytest.approx(hu.mean())
    assert found.opacity_mean_hu == pytest.approx(hu.reshape(-1)[4:].mean())
    assert found.reason is None


def test_groups_add_up_and_the_absent_is_none() -> None:
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 100, (4, 10, 10)).astype(np.int16)
    mask = rng.choice(np.array([0, 1, 3, 4, 6], np.uint8), (4, 10, 10))
    opacity = rng.integers(0, 3, hu.shape).astype(np.uint8)
    found = quantify_opacity(hu, mask, opacity, 1.0)
    assert found["RML"] == OpacityQuantity(reason="nothing of it is in the mask")
    for name in ("emphysema_ml", "aerated_ml", "opacity_ml", "consolidation_ml"):
        parts = {key: getattr(found[key], name) for key in ("RUL", "RLL", "LUL", "right", "left", "lungs")}
        assert parts["right"] == pytest.approx(parts["RUL"] + parts["RLL"])
        assert parts["left"] == parts["LUL"]
        assert parts["lungs"] == pytest.approx(parts["right"] + parts["left"])
    inside = np.isin(mask, (1, 3, 4))
    assert found["lungs"].mean_hu == pytest.approx(hu[inside].mean())
    assert found["lungs"].opacity_ml == np.sum(inside & (opacity > 0))


def test_nothing_opaque_has_no_mean_but_a_true_zero() -> None:
    hu = np.full((1, 2, 2), -850, np.int16)
    found = quantify_opacity(hu, np.ones(hu.shape, np.uint8), np.zeros(hu.shape, np.uint8), 1.0)["RUL"]
    assert found.opacity_percent == 0.0 and found.opacity_mean_hu is None and found.reason
    assert "reason" in found.to_dict()


def test_lesions_are_found_and_told_apart(sick: Chest) -> None:
    found = segment_opacity(sick.array, sick.lobes, sick.spacing_mm)
    assert dice(found > 0, sick.lesions > 0) > 0.9
    assert dice(found == GROUND_GLASS, sick.lesions == GROUND_GLASS) > 0.8
    assert dice(found == CONSOLIDATION, sick.lesions == CONSOLIDATION) > 0.8
    assert not found[sick.lobes == 0].any()


def test_vessels_and_rims_of_a_healthy_lung_are_not_opacity(healthy: Chest) -> None:
    by_hu = quantify_opacity(healthy.array, healthy.lobes, np.zeros_like(healthy.lobes), 1.0)["lungs"]
    assert by_hu.ground_glass_band_ml is not None and by_hu.consolidation_band_ml is not None
    dense = (by_hu.ground_glass_band_ml + by_hu.consolidation_band_ml) / np.sum(healthy.lobes > 0)
    assert dense > 0.02  # so there is something to be taken for disease
    found = segment_opacity(healthy.array, healthy.lobes, healthy.spacing_mm)
    assert np.sum(found > 0) / np.sum(healthy.lobes > 0) < 0.01


def test_noise_changes_the_share_little() -> None:
    shares = []
    for noise in (5.0, 80.0):
        chest = make_chest(lesions=True, noise_hu=noise)
        found = segment_opacity(chest.array, chest.lobes, chest.spacing_mm)
        shares.append(100 * float(np.sum(found > 0)) / float(np.sum(chest.lobes > 0)))
    assert abs(shares[0] - shares[1]) < 1.5


def test_excluded_voxels_and_small_islands_are_left_out(sick: Chest) -> None:
    everything = segment_opacity(sick.array, sick.lobes, sick.spacing_mm)
    exclude = sick.lesions == GROUND_GLASS
    assert not segment_opacity(sick.array, sick.lobes, sick.spacing_mm, exclude=Part.of(exclude))[exclude].any()
    big = OpacityConfig(least_ml=1000.0)
    assert everything.any() and not segment_opacity(sick.array, sick.lobes, sick.spacing_mm, big).any()
    plain = OpacityConfig(least_ml=0.0, smooth_mm=0.0)
    assert dice(segment_opacity(sick.array, sick.lobes, sick.spacing_mm, plain) > 0, sick.lesions > 0) > 0.85


def test_a_lung_that_is_dense_throughout_is_opaque_throughout() -> None:
    mask = np.zeros((6, 20, 20), np.uint8)
    mask[1:5, 3:17, 3:17] = 2
    hu = np.where(mask > 0, -400, 30).astype(np.int16)
    found = segment_opacity(hu, mask, (5.0, 1.0, 1.0))
    np.testing.assert_array_equal(found > 0, mask > 0)
    assert not segment_opacity(hu, np.zeros_like(mask), (5.0, 1.0, 1.0)).any()


def test_shares_of_parts() -> None:
    total, opaque = np.array([1, 2, 2, 0]), np.array([1, 1, 2, 0])
    assert opacity_percents(total, opaque, {1: "a", 2: "b", 3: "c"}) == {"a": 50.0, "b": 100.0, "c": None}


def test_bad_input_is_refused(sick: Chest) -> None:
    with pytest.raises(M2UNetError, match="image's grid"):
        segment_opacity(sick.array[1:], sick.lobes, sick.spacing_mm)
    with pytest.raises(M2UNetError, match="codes 0-2"):
        quantify_opacity(sick.array, sick.lobes, sick.lesions + 2, 1.0)
    with pytest.raises(ValidationError, match="must rise"):
        OpacityConfig(ground_glass_from_hu=-200)
    with pytest.raises(ValidationError):
        OpacityConfig.model_validate({"vote": 1})


@pytest.mark.real
def test_a_healthy_real_lung_has_little_opacity(real_data: Path) -> None:
    """The small whole CT, lungs by threshold and closing, so that vessels are inside."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(real_data / "cip" / "ct-64.nrrd"))
    array = sitk.GetArrayFromImage(image).astype(np.int16)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.GetImageFromArray((array < -500).astype(np.uint8))))
    labels = sitk.GetArrayFromImage(parts)
    inner = next(
        k for k in range(1, 6) if not any((labels.take(e, axis=a) == k).any() for a in (1, 2) for e in (0, -1))
    )
    lungs = sitk.GetArrayFromImage(
        sitk.BinaryMorphologicalClosing(sitk.GetImageFromArray((labels == inner).astype(np.uint8)), [2, 2, 2])
    )
    found = segment_opacity(array, lungs, image.GetSpacing()[::-1])
    share = float(np.sum(found > 0)) / float(lungs.sum())
    assert share < 0.03


def test_the_dense_cut_follows_the_scans_own_aerated_lung() -> None:
    rng = np.random.default_rng(0)
    lesion = rng.normal(-550, 60, 4000)
    assert dense_cut(np.concatenate([rng.normal(-850, 30, 9000), lesion])) == pytest.approx(-720, abs=12)
    assert dense_cut(np.concatenate([rng.normal(-950, 30, 9000), lesion])) == -760  # deep breath, emphysema
    assert dense_cut(np.concatenate([rng.normal(-710, 30, 9000), lesion])) == -650  # breathed out
    assert dense_cut(np.full(100, -200.0)) == -650  # nothing aerated
    with pytest.raises(ValidationError, match="limits of the dense cut"):
        OpacityConfig(dense_between_hu=(-600, -700))


def test_fine_scans_are_judged_in_blocks_with_the_same_result(sick: Chest) -> None:
    fine = [np.repeat(np.repeat(a, 2, axis=1), 2, axis=2) for a in (sick.array, sick.lobes)]
    spacing = (sick.spacing_mm[0], sick.spacing_mm[1] / 2, sick.spacing_mm[2] / 2)
    coarse = segment_opacity(sick.array, sick.lobes, sick.spacing_mm)
    found = segment_opacity(fine[0], fine[1], spacing)
    np.testing.assert_array_equal(found[:, ::2, ::2], coarse)
    odd = segment_opacity(fine[0][:, 1:, 1:], fine[1][:, 1:, 1:], spacing)
    assert dice(odd > 0, found[:, 1:, 1:] > 0) > 0.97


def test_lesions_of_phantoms_are_found() -> None:
    """Scans with disease, vessels, confounders and partial volume, of a seed the rule was not tuned on."""
    from m2unet.phantom.cohort import CohortConfig, plan_cohort
    from m2unet.phantom.scan import make_scan

    plan = plan_cohort(CohortConfig(size="small", scans=12, patients=12, severe_fraction=0.5), seed=77)
    sick_ones = [scan for scan in plan.scans if np.mean(scan.state.extents) > 0.05][:3]
    common = total = 0
    for scan in sick_ones:
        phantom = make_scan(plan, scan.scan_id)
        inside = np.isin(phantom.lobes, LOBE_CODES)
        found = segment_opacity(phantom.volume.array, phantom.lobes, phantom.volume.spacing_mm) > 0
        truth = (phantom.lesions > 0) & inside
        assert abs(100 * found[inside].mean() - 100 * truth[inside].mean()) < 5
        common += int(np.sum(found & truth))
        total += int(found.sum() + truth.sum())
    assert len(sick_ones) == 3 and 2 * common / total > 0.8
