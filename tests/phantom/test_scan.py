from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from m2unet.ct.volume import from_source
from m2unet.errors import ConfigError
from m2unet.phantom.cohort import CohortPlan
from m2unet.phantom.protocol import SITES
from m2unet.phantom.scan import Patient, PhantomScan, make_scan
from m2unet.phantom.severity import severity_score

from .conftest import shrunk


def with_protocol(plan: CohortPlan, scan_id: str, **changes: object) -> CohortPlan:
    small = shrunk(plan.scan(scan_id))
    changed = replace(small, protocol=replace(small.protocol, **changes))
    return replace(plan, scans=(changed,))


def test_arrays_lie_on_one_grid(scan: PhantomScan) -> None:
    protocol = scan.plan.protocol
    assert scan.volume.shape == (protocol.slices, protocol.matrix, protocol.matrix)
    assert scan.lobes.shape == scan.lesions.shape == scan.volume.shape
    assert scan.volume.array.dtype == np.int16
    assert set(np.unique(scan.lobes)) == {0, 1, 2, 3, 4, 5, 6}
    assert set(np.unique(scan.lesions)) <= {0, 1, 2, 3, 4}


def test_truth_is_counted_from_the_masks(scan: PhantomScan) -> None:
    voxel_ml = np.prod(scan.volume.spacing_mm) / 1000
    for lobe in range(1, 6):
        inside = scan.lobes == lobe
        assert scan.truth.lobe_ml[lobe - 1] == pytest.approx(inside.sum() * voxel_ml)
        assert scan.truth.opacified[lobe - 1] == pytest.approx(100 * (scan.lesions[inside] > 0).mean())
        assert scan.truth.percent[lobe - 1, 2] == pytest.approx(100 * (scan.lesions[inside] == 2).mean())
    share = scan.truth.percent / 100
    assert scan.truth.score == pytest.approx(severity_score(share[:, 1:].sum(1), share[:, 2]))


def test_truth_is_near_the_plan(scan: PhantomScan) -> None:
    np.testing.assert_allclose(scan.truth.opacified, 100 * np.array(scan.plan.state.extents), atol=5)


def test_the_same_plan_gives_the_same_voxels(plan: CohortPlan, ill: Patient) -> None:
    name = next(s.scan_id for s in plan.scans if s.patient_id == ill.plan.patient_id)
    tiny = replace(plan, scans=(shrunk(plan.scan(name)),))
    first, second = make_scan(tiny, name, ill), make_scan(tiny, name)
    np.testing.assert_array_equal(first.volume.array, second.volume.array)
    np.testing.assert_array_equal(first.lesions, second.lesions)


@pytest.mark.parametrize("site", range(len(SITES)))
def test_stored_voxels_are_flipped_as_the_site_does(plan: CohortPlan, ill: Patient, site: int) -> None:
    name = next(s.scan_id for s in plan.scans if s.patient_id == ill.plan.patient_id)
    made = make_scan(with_protocol(plan, name, site=site, matrix=24, pixel_mm=15.0, slices=4), name, ill)
    assert made.volume.source.flips == SITES[site].flips
    axes = tuple(np.flatnonzero(SITES[site].flips))
    np.testing.assert_array_equal(made.stored, np.flip(made.volume.array, axes))
    source = made.volume.source
    again = from_source(made.stored, source.spacing_mm, source.origin_mm, source.direction)
    np.testing.assert_allclose(again.origin_mm, made.volume.origin_mm)
    np.testing.assert_allclose(made.volume.direction, np.eye(3))


def test_thick_slices_blur_along_the_body(plan: CohortPlan, ill: Patient) -> None:
    name = next(s.scan_id for s in plan.scans if s.patient_id == ill.plan.patient_id)
    variation = []
    for thickness in (1.0, 10.0):
        quiet = {"site": 2, "noise_hu": 0.01, "step_mm": 2.0, "slices": 30, "low_mm": 60.0, "thickness_mm": thickness}
        made = make_scan(with_protocol(plan, name, **quiet), name, ill)
        inside = (made.lobes > 0)[1:] & (made.lobes > 0)[:-1]
        variation.append(np.abs(np.diff(made.volume.array.astype(float), axis=0))[inside].mean())
    assert variation[1] < 0.8 * variation[0]


def test_large_scans_are_made_slab_by_slab(plan: CohortPlan, ill: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    from m2unet.phantom import scan as module

    name = next(s.scan_id for s in plan.scans if s.patient_id == ill.plan.patient_id)
    tiny = replace(plan, scans=(shrunk(plan.scan(name)),))
    whole = make_scan(tiny, name, ill)
    monkeypatch.setattr(module, "_SLAB_VOXELS", 5 * 56 * 56)
    parts = make_scan(tiny, name, ill)
    # smooth tissue is interpolated from a coarser grid that depends on the slab, so a few voxels differ
    assert (whole.lobes != parts.lobes).mean() < 0.02
    assert np.corrcoef(whole.volume.array.ravel(), parts.volume.array.ravel())[0, 1] > 0.99


def test_an_unknown_scan_is_refused(plan: CohortPlan) -> None:
    with pytest.raises(ConfigError, match="no such scan"):
        make_scan(plan, "nobody")
