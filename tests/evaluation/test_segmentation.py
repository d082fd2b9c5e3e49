"""Lobe overlap and surface agreement against MONAI and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from m2unet.anatomy import LOBES
from m2unet.errors import M2UNetError
from m2unet.evaluation import segmentation
from m2unet.evaluation.segmentation import OverlapCounter, segmentation_metrics, surface_metrics

SPACING = (2.5, 0.7, 0.9)


def blobs(seed: int, shape: tuple[int, int, int] = (16, 28, 24)) -> NDArray[np.uint8]:
    """Smooth random labels 0-6 with each code somewhere."""
    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(rng.standard_normal(shape), 2.5, mode="reflect") for _ in range(7)])
    return fields.argmax(axis=0).astype(np.uint8)


def nudged(labels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """The labels shifted by a voxel, with one slab overwritten: like a prediction."""
    rng = np.random.default_rng(seed)
    moved = np.roll(labels, tuple(int(s) for s in rng.integers(-1, 2, 3)), axis=(0, 1, 2))
    moved[:, :3] = 0
    return moved


@pytest.mark.parametrize("seed", range(4))
def test_dice_agrees_with_monai(seed: int) -> None:
    import torch
    from monai.metrics import DiceMetric

    truth, predicted = blobs(seed), nudged(blobs(seed), seed)
    one_hot = [
        torch.from_numpy(np.stack([v == c for c in range(7)]).astype(np.float32))[None] for v in (truth, predicted)
    ]
    expected = DiceMetric(include_background=True, reduction="none")(y_pred=one_hot[1], y=one_hot[0])[0]
    found = segmentation_metrics(truth, predicted)
    for lobe in LOBES:
        assert found.lobes[lobe.abbreviation].dsc == pytest.approx(float(expected[lobe.code]), abs=1e-6)
    assert found.dsc == pytest.approx(float(expected[1:6].mean()), abs=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_sensitivity_and_ppv_agree_with_scikit_learn(seed: int) -> None:
    from sklearn.metrics import precision_score, recall_score

    truth, predicted = blobs(seed), nudged(blobs(seed), seed)
    codes = [lobe.code for lobe in LOBES]
    arguments = {"labels": codes, "average": None}
    found = segmentation_metrics(truth, predicted).lobes.values()
    np.testing.assert_allclose([r.sen for r in found], recall_score(truth.ravel(), predicted.ravel(), **arguments))
    np.testing.assert_allclose([r.ppv for r in found], precision_score(truth.ravel(), predicted.ravel(), **arguments))


def test_a_hand_worked_row() -> None:
    truth = np.array([[[1, 1, 1, 2, 2, 0, 4]]], dtype=np.uint8)
    predicted = np.array([[[1, 1, 2, 2, 2, 3, 0]]], dtype=np.uint8)
    found = segmentation_metrics(truth, predicted)
    right_upper, middle, lower, left_upper, left_lower = found.lobes.values()
    assert (right_upper.dsc, right_upper.sen, right_upper.ppv) == (pytest.approx(0.8), pytest.approx(2 / 3), 1.0)
    assert (middle.dsc, middle.sen, middle.ppv) == (pytest.approx(0.8), 1.0, pytest.approx(2 / 3))
    assert (lower.dsc, lower.sen, lower.ppv, lower.reason) == (0.0, None, 0.0, segmentation.ABSENT_FROM_TRUTH)
    assert (left_upper.dsc, left_upper.sen, left_upper.ppv) == (0.0, 0.0, None)
    assert left_upper.reason == segmentation.ABSENT_FROM_PREDICTION
    assert left_lower.dsc is left_lower.sen is left_lower.ppv is None
    assert left_lower.reason == segmentation.ABSENT_FROM_BOTH
    assert found.dsc == pytest.approx(1.6 / 4)
    assert found.sen == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found.ppv == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found.values()["dsc_LLL"] is None
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["lobes"]["RUL"]["common_voxels"] == 2


@pytest.mark.parametrize(
    ("truth", "predicted", "undefined"),
    [(0, 0, "dsc sen ppv"), (0, 1, "sen"), (1, 0, "ppv"), (6, 6, "dsc sen ppv")],
)
def test_means_without_any_lobe_are_none_with_a_reason(truth: int, predicted: int, undefined: str) -> None:
    shape = (2, 3, 4)
    found = segmentation_metrics(np.full(shape, truth, np.uint8), np.full(shape, predicted, np.uint8))
    assert [name for name in ("dsc", "sen", "ppv") if getattr(found, name) is None] == undefined.split()
    assert found.reason


def test_slabs_give_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, predicted = blobs(9), nudged(blobs(9), 9)
    whole = segmentation_metrics(truth, predicted)
    counter = OverlapCounter()
    for z in range(len(truth)):
        counter.add(truth[z], predicted[z])
    assert counter.metrics() == whole
    assert counter.table.sum() == truth.size
    monkeypatch.setattr(segmentation, "_SLAB_VOXELS", 100)
    assert segmentation_metrics(truth.astype(np.int64), predicted) == whole


@pytest.mark.parametrize("function", [segmentation_metrics, lambda a, b: surface_metrics(a, b, SPACING)])
def test_bad_masks_are_refused(function: object) -> None:
    mask = np.zeros((2, 3, 4), np.uint8)
    with pytest.raises(M2UNetError, match="one grid"):
        function(mask, mask[:1])  # type: ignore[operator]
    with pytest.raises(M2UNetError, match="unknown code"):
        function(mask, mask + 12)  # type: ignore[operator]
    with pytest.raises(M2UNetError, match="unknown code"):
        function(mask.astype(np.int16) - 1, mask)  # type: ignore[operator]
    with pytest.raises(M2UNetError, match="integer codes"):
        function(mask, mask.astype(np.float32))  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(3))
def test_surfaces_agree_with_monai(seed: int) -> None:
    import torch
    from monai.metrics import HausdorffDistanceMetric, SurfaceDiceMetric

    truth, predicted = blobs(seed), nudged(blobs(seed), seed)
    one_hot = [
        torch.from_numpy(np.stack([v == c for c in range(6)]).astype(np.float32))[None] for v in (truth, predicted)
    ]
    hausdorff = HausdorffDistanceMetric(percentile=95, reduction="none")(one_hot[1], one_hot[0], spacing=SPACING)[0]
    dice = SurfaceDiceMetric(class_thresholds=[2.0] * 5, reduction="none")(one_hot[1], one_hot[0], spacing=SPACING)[0]
    found = surface_metrics(truth, predicted, SPACING, tolerance_mm=2.0)
    np.testing.assert_allclose([r.hd95_mm for r in found.values()], hausdorff.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose([r.surface_dice for r in found.values()], dice.numpy(), rtol=1e-4, atol=1e-4)


def test_surfaces_by_hand_use_the_spacing() -> None:
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[2:8, 2:8, 2:8] = 1
    moved = np.roll(truth, 2, axis=0)
    found = surface_metrics(truth, moved, (3.0, 1.0, 1.0), tolerance_mm=1.0)
    assert found["RUL"].hd95_mm == pytest.approx(6.0)
    assert found["RML"] == segmentation.SurfaceAgreement(None, None, segmentation.ABSENT_FROM_BOTH)
    same = surface_metrics(truth, truth, (3.0, 1.0, 1.0))
    assert (same["RUL"].surface_dice, same["RUL"].hd95_mm) == (1.0, 0.0)
    gone = surface_metrics(truth, np.zeros_like(truth), (3.0, 1.0, 1.0))
    assert gone["RUL"] == segmentation.SurfaceAgreement(0.0, None, segmentation.ABSENT_FROM_PREDICTION)
    with pytest.raises(M2UNetError, match="3-D masks"):
        surface_metrics(truth[0], truth[0], SPACING)


def test_distances_respect_a_tilted_gantry() -> None:
    """Slices of 10 mm stacked at 20 degrees: two points of neighbouring slices above each other in the body."""
    tilt = np.radians(20)
    direction = np.eye(3)
    direction[:, 2] = [0.0, np.sin(tilt), np.cos(tilt)]  # the step from slice to slice is slanted
    truth, predicted = (np.zeros((2, 40, 3), dtype=np.uint8) for _ in range(2))
    truth[0, 10, 1], predicted[1, 10, 1] = 1, 1
    spacing = (10.0, 1.0, 1.0)
    along = surface_metrics(truth, predicted, spacing, direction=direction)["RUL"].hd95_mm
    assert along == pytest.approx(10.0)
    predicted = np.roll(predicted, -3, axis=1)
    step = np.array([0, 10 * np.sin(tilt) - 3, 10 * np.cos(tilt)])
    found = surface_metrics(truth, predicted, spacing, direction=direction)["RUL"].hd95_mm
    assert found == pytest.approx(np.linalg.norm(step)) and found < np.hypot(10, 3) - 0.9
