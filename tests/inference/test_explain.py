"""Heat maps: in the right place, of the same bags as the estimate, for every method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from m2unet.config import Config, load_config
from m2unet.ct.prepare import prepare_volume
from m2unet.ct.volume import Volume
from m2unet.inference.explain import Explanation, explain_severity, share_on
from m2unet.inference.severity import estimate_severity
from m2unet.models.batch import Batch, ModelOutput
from m2unet.models.evidence import Evidence
from m2unet.models.registry import build_model
from tests.inference.conftest import chest

CPU = torch.device("cpu")
SIZES = ["model.width=4", "model.deep_width=8", "model.instance_concepts=8", "model.bag_concepts=4"]


def settings(*more: str) -> Config:
    return load_config("paper", ["prepare.min_box=32", "bag.size=40", "bag.patch=16", "bag.test_bags=3", *SIZES, *more])


@dataclass
class BrightNetwork:
    """Each of sixteen positions of a patch speaks for severe as much as it holds dense lung, -780 to -500 HU."""

    tasks: frozenset[str] = frozenset({"severity"})

    def evidence(self, batch: Batch) -> Evidence:
        hu = batch.patches[0, :, 0] * 1200 - 1200
        dense = ((hu > -780) & (hu < -500)).float()
        parts = dense.unflatten(2, (4, -1)).unflatten(1, (4, -1)).mean(dim=(2, 4)) / len(dense)
        severity = torch.stack([torch.zeros(()), parts.sum() - 0.2]).unsqueeze(0)
        return Evidence(ModelOutput(severity=severity), parts, -0.2, parts)


@pytest.fixture(scope="module")
def found() -> tuple[Volume, Explanation]:
    volume, config = chest(), settings("bag.test_bags=12")
    scan = prepare_volume(volume, config.prepare)
    return volume, explain_severity(BrightNetwork(), scan, config, seed=0, device=CPU)[1]  # type: ignore[arg-type]


def test_the_heat_lies_where_the_evidence_is(found: tuple[Volume, Explanation]) -> None:
    volume, explanation = found
    heat, dense = explanation.heat, volume.array == -700  # the lung on the patient's left
    assert heat.shape == volume.shape and heat.dtype == np.int8 and heat.max() == 100 and heat.min() == 0
    assert np.average(heat[dense]) > 8 * np.average(heat[volume.array == -850])
    share = share_on(heat, dense)
    assert share is not None and share > 0.6 > 5 * dense.mean()
    centre = [np.average(axis, weights=heat) for axis in np.indices(heat.shape)]
    true = [axis[dense].mean() for axis in np.indices(heat.shape)]
    np.testing.assert_allclose(centre, true, atol=2.5)


def test_the_strongest_patches_are_named_by_slice(found: tuple[Volume, Explanation]) -> None:
    volume, explanation = found
    patches = explanation.patches
    assert 1 <= len(patches) <= 5
    contributions = [patch.contribution for patch in patches]
    assert contributions == sorted(contributions, reverse=True) and all(0 < p.share <= 1 for p in patches)
    dense = volume.array == -700
    for patch in patches:
        y0, y1, x0, x1 = patch.box
        assert y1 - y0 <= 16 and x1 - x0 <= 16 and patch.slice_number == patch.z + 1
        # the true part: the mean over sixteen positions of a patch of forty, each the dense share of its voxels
        part = dense[patch.z, y0:y1, x0:x1].sum() / 256 * 16 / 40
        assert patch.contribution == pytest.approx(part, abs=0.05)
        assert dense[patch.z, patch.peak[0], patch.peak[1]]
    places = {(p.z, p.box) for p in patches}
    assert len(places) == len(patches)


def test_log_odds_and_base_are_means_over_the_bags(found: tuple[Volume, Explanation]) -> None:
    _, explanation = found
    assert explanation.base == pytest.approx(-0.2)
    assert 0 < explanation.looked_at <= 1 and explanation.log_odds > explanation.base


@pytest.mark.parametrize("name", ["m2unet", "cls_only", "gated_mil"])
def test_the_bags_are_those_of_the_estimate(name: str, volume: Volume) -> None:
    config = settings(f"model.name={name}")
    scan = prepare_volume(volume, config.prepare)
    torch.manual_seed(0)
    model = build_model(config.model).eval()
    estimate, explanation = explain_severity(model, scan, config, seed=7, device=CPU)
    plain = estimate_severity(model, scan, config, seed=7, device=CPU)
    assert estimate.bags == pytest.approx(plain.bags, abs=1e-6) and len(plain.embedding) > 0
    assert estimate.embedding == pytest.approx(plain.embedding, abs=1e-5)
    odds = [np.log(p / (1 - p)) for p in plain.bags]
    assert explanation.log_odds == pytest.approx(np.mean(odds), abs=1e-4)
    again = explain_severity(model, scan, config, seed=7, device=CPU)[1]
    np.testing.assert_array_equal(again.heat, explanation.heat)
    assert again.patches == explanation.patches


def test_a_resampled_scan_gets_its_heat_back_on_its_own_grid() -> None:
    volume = chest((12, 120, 160), (5.0, 1.5, 1.5))
    config = settings("prepare.inplane_mm=3", "bag.test_bags=12")
    scan = prepare_volume(volume, config.prepare)
    assert scan.resampled
    heat = explain_severity(BrightNetwork(), scan, config, seed=0, device=CPU)[1].heat  # type: ignore[arg-type]
    assert heat.shape == volume.shape
    dense = volume.array == -700
    assert np.average(heat[dense]) > 8 * np.average(heat[volume.array == -850])


def test_values_return_to_the_volume_in_place(volume: Volume) -> None:
    """A linear ramp in x is the same ramp on the volume, whatever the stride; outside the box it is 0."""
    scan = prepare_volume(volume, settings().prepare)
    for stride in (1, 4):
        depth, height, width = scan.array.shape
        cells = -(-width // stride)
        ramp = (np.arange(cells, dtype=np.float32) + 0.5) * stride
        values = np.broadcast_to(ramp, (depth, -(-height // stride), cells)).astype(np.float32)
        planes = list(scan.restore_values(values, stride))
        assert len(planes) == volume.shape[0] and planes[0].shape == volume.shape[1:]
        y0, _, x0, x1 = scan.window
        line = planes[3][max(y0, 0) + 5]
        inner = np.arange(max(x0, 0) + stride, min(x1, volume.shape[2]) - stride)
        np.testing.assert_allclose(line[inner], inner - x0 + 0.5, rtol=1e-5)


def test_share_on_a_mask() -> None:
    heat = np.array([[[10, 30, -50, 60]]], dtype=np.int8)
    assert share_on(heat, np.array([[[True, False, True, False]]])) == pytest.approx(0.1)
    assert share_on(np.zeros_like(heat), np.ones(heat.shape, bool)) is None
