"""Severity can be read off the lungs, and off nothing else.

Classifiers are scikit-learn's, cross-validated by patient; every figure is the mean over several divisions into folds,
because with some seventy patients a single division scatters by 0.05.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from m2unet.ct.body import find_body
from m2unet.phantom.anatomy import Anatomy
from m2unet.phantom.cohort import CohortConfig, CohortPlan, plan_cohort
from m2unet.phantom.protocol import SITES
from m2unet.phantom.scan import make_patient, make_scan

from .conftest import shrunk_plan

PAPER = 51 / 242


def labels(plan: CohortPlan) -> tuple[np.ndarray, np.ndarray]:
    severe = np.array([plan.patient_of(scan).severe for scan in plan.scans], dtype=int)
    return severe, np.array([scan.patient_id for scan in plan.scans])


def protocol_features(plan: CohortPlan) -> np.ndarray:
    """Spacing, slice count, field of view and site of every scan."""
    rows = []
    for scan in plan.scans:
        p = scan.protocol
        along = p.slices * p.step_mm
        site = [float(p.site == index) for index in range(len(SITES))]
        rows.append([p.step_mm, p.pixel_mm, float(p.slices), p.fov_mm, along, *site])
    return np.array(rows)


def crossvalidated(features: np.ndarray, plan: CohortPlan, repeats: int = 10) -> float:
    """AUC on held-out patients, mean over folds and divisions."""
    y, patients = labels(plan)
    found = []
    for seed in range(repeats):
        for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(features, y, patients):
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            score = model.fit(features[train], y[train]).decision_function(features[test])
            if 0 < y[test].sum() < len(test):
                found.append(roc_auc_score(y[test], score))
    return float(np.mean(found))


def planned_extents(plan: CohortPlan) -> np.ndarray:
    return np.array([[*scan.state.extents, *scan.state.dense] for scan in plan.scans])


@pytest.mark.parametrize("share", [PAPER, 0.4])
@pytest.mark.parametrize("seed", [0, 1])
def test_protocols_of_200_scans_do_not_tell_severity(seed: int, share: float) -> None:
    plan = plan_cohort(CohortConfig(size="small", scans=200, severe_fraction=share), seed)
    assert 0.40 < crossvalidated(protocol_features(plan), plan) < 0.60


@pytest.fixture(scope="module")
def plans() -> list[CohortPlan]:
    """Four cohorts of other seeds."""
    return [plan_cohort(CohortConfig(size="small", scans=300, severe_fraction=0.4), seed) for seed in range(20, 24)]


def test_protocols_learnt_on_one_cohort_tell_nothing_of_others(plans: list[CohortPlan]) -> None:
    """The mean over several others is at chance: no site, spacing or field of view goes with the label."""
    data = [(protocol_features(plan), labels(plan)[0]) for plan in plans]
    found = []
    for here, (x, y) in enumerate(data):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(x, y)
        found += [roc_auc_score(v, model.decision_function(u)) for there, (u, v) in enumerate(data) if there != here]
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)


def test_label_shares_differ_among_sites_by_chance_only(plans: list[CohortPlan]) -> None:
    from scipy.stats import chi2_contingency

    table = np.zeros((7, 2))
    for plan in plans:
        for patient in plan.patients:
            table[patient.site, int(patient.severe)] += 1
    assert chi2_contingency(table).pvalue > 0.01


@pytest.mark.parametrize("share", [PAPER, 0.4])
def test_planned_extents_tell_severity_but_not_wholly(share: float) -> None:
    plans = [plan_cohort(CohortConfig(size="small", scans=200, severe_fraction=share), seed) for seed in range(2)]
    found = [crossvalidated(planned_extents(plan), plan, repeats=3) for plan in plans]
    assert 0.95 < np.mean(found) < 0.995


@dataclass
class Rendered:
    """What can be measured in every scan of a cohort."""

    box_hu: np.ndarray
    body_hu: np.ndarray
    extents: np.ndarray


def render(plan: CohortPlan) -> Rendered:
    box, body, extents = [], [], []
    patients = {}
    for scan in plan.scans:
        if scan.patient_id not in patients:
            patients[scan.patient_id] = make_patient(plan.patient_of(scan))
        made = make_scan(plan, scan.scan_id, patients[scan.patient_id])
        hu = np.maximum(made.volume.array, -1024)
        found = find_body(hu, made.volume.spacing_mm)
        (_, y0, x0), (_, y1, x1) = np.argwhere(found.mask).min(0), np.argwhere(found.mask).max(0) + 1
        box.append(hu[:, y0:y1, x0:x1].mean())
        body.append(hu[found.mask].mean())
        extents.append([*np.nan_to_num(made.truth.opacified), *np.nan_to_num(made.truth.percent[:, 2])])
    return Rendered(np.array(box)[:, None], np.array(body)[:, None], np.array(extents))


def picture_figures(plan: CohortPlan) -> dict[str, float]:
    """AUC of the mean HU in the body's axial box and in the body, and of the true extents."""
    made = render(plan)
    return {name: crossvalidated(getattr(made, name), plan) for name in ("box_hu", "body_hu", "extents")}


def check_pictures(plan: CohortPlan, least: float, most: float) -> None:
    found = picture_figures(plan)
    assert found["box_hu"] < 0.85
    assert found["body_hu"] < 0.85
    assert least < found["extents"] < most


def test_the_picture_is_neither_trivial_nor_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty scans on few voxels, without vessels: true extents tell the label, the mean HU of the body does not."""
    whole = Anatomy.render
    monkeypatch.setattr(Anatomy, "render", lambda self, grid, **_: whole(self, grid, vessels=False))
    plan = plan_cohort(CohortConfig(size="small", scans=60, patients=24, severe_fraction=0.4), seed=0)
    check_pictures(shrunk_plan(plan, 44, 12), 0.90, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_200_small_scans_are_neither_trivial_nor_leaking(seed: int) -> None:
    plan = plan_cohort(CohortConfig(size="small", scans=200, severe_fraction=0.4), seed)
    assert 0.40 < crossvalidated(protocol_features(plan), plan) < 0.60
    check_pictures(plan, 0.95, 0.995)
