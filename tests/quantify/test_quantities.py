"""All figures of one scan together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from m2unet.quantify.airways import find_airways
from m2unet.quantify.lobes import GROUPS
from m2unet.quantify.opacity import OpacityConfig
from m2unet.quantify.quantities import gather, quantify

from .conftest import Chest


def test_a_sick_chest_is_measured_as_made(sick: Chest) -> None:
    found = quantify(sick.array, sick.lobes, sick.spacing_mm)
    voxel_ml = np.prod(sick.spacing_mm) / 1000
    for name, codes in GROUPS.items():
        inside = np.isin(sick.lobes, codes)
        true_percent = 100 * np.mean(sick.lesions[inside] > 0)
        assert found.volumes[name].volume_ml == pytest.approx(inside.sum() * voxel_ml)
        assert found.opacity[name].opacity_percent == pytest.approx(true_percent, abs=2.0)
    by_truth = gather(
        sick.array,
        sick.lobes,
        sick.spacing_mm,
        sick.lesions,
        airways=find_airways(sick.array, sick.lobes, sick.spacing_mm),
        config=OpacityConfig(),
    )
    steps = [
        abs(found.severity_score.parts[name] - by_truth.severity_score.parts[name])  # type: ignore[operator]
        for name in found.regions
    ]
    assert np.mean(np.array(steps) == 0) >= 0.9 and max(steps) <= 1
    assert found.lobar_score.total is not None and by_truth.lobar_score.total is not None
    assert abs(found.lobar_score.total - by_truth.lobar_score.total) <= 1
    assert found.airway_ml is not None
    assert sum(r.volume_ml for r in found.regions.values() if r.volume_ml) == pytest.approx(
        found.volumes["lungs"].volume_ml
    )


def test_tables_and_json(sick: Chest) -> None:
    lobes = np.where(sick.lobes == 2, 0, sick.lobes).astype(np.uint8)
    found = quantify(sick.array, lobes, sick.spacing_mm)
    back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert back["lobes"]["RML"]["volume_ml"] is None and back["lobes"]["RML"]["reason"]
    assert back["regions"]["right lateral"]["score"] is None and back["regions"]["right lateral"]["reason"]
    assert back["scores"][0]["total"] is None and back["scores"][0]["reason"]
    rows = found.lobe_rows()
    assert [row["part"] for row in rows] == list(GROUPS)
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert rows[1]["reason"] == "the lobe is absent from the mask; nothing of it is in the mask"
    regions = found.region_rows()
    assert len(regions) == 20 and regions[0]["region"] == "right apical"


def test_a_healthy_chest_scores_nothing(healthy: Chest) -> None:
    found = quantify(healthy.array, healthy.lobes, healthy.spacing_mm)
    assert found.severity_score.total is not None and found.severity_score.total <= 2
    assert found.severity_score.severe is False
    assert found.opacity["lungs"].opacity_percent is not None and found.opacity["lungs"].opacity_percent < 1.0


def test_a_mask_with_an_airway_is_measured(sick: Chest) -> None:
    lobes = sick.lobes.copy()
    lobes[12:20, 50:58, 78:84] = 6
    found = quantify(sick.array, lobes, sick.spacing_mm)
    assert found.airway_ml == pytest.approx(np.sum(lobes == 6) * np.prod(sick.spacing_mm) / 1000)
    assert found.severity_score.total is not None and found.lobar_score.total is not None
