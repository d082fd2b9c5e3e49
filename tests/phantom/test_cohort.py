from __future__ import annotations

import numpy as np
import pytest

from m2unet.cohort.manifest import SEVERITY_OF_GRADE
from m2unet.errors import ConfigError
from m2unet.phantom.cohort import MOST_SCANS, CohortConfig, CohortPlan, plan_cohort
from m2unet.phantom.disease import LEAST_ACTIVITY
from m2unet.phantom.protocol import SITES
from m2unet.phantom.severity import DOUBT, THRESHOLD


@pytest.fixture(scope="module")
def paper() -> CohortPlan:
    return plan_cohort(seed=1)


def test_the_defaults_are_the_papers_cohort(paper: CohortPlan) -> None:
    assert len(paper.patients) == 242
    assert sum(patient.severe for patient in paper.patients) == 51
    assert len(paper.scans) == 666
    assert sum(scan.lobe_mask for scan in paper.scans) == 152
    assert {scan.protocol.site for scan in paper.scans} == set(range(7))
    slices = [scan.protocol.slices for scan in paper.scans]
    assert min(slices) < 45
    assert max(slices) > 600


def test_every_patient_has_scans_in_order_of_time(paper: CohortPlan) -> None:
    days: dict[str, list[float]] = {}
    for scan in paper.scans:
        days.setdefault(scan.patient_id, []).append(scan.day)
    assert set(days) == {patient.patient_id for patient in paper.patients}
    assert max(map(len, days.values())) <= MOST_SCANS
    assert all(found == sorted(found) for found in days.values())


def test_labels_follow_the_law(paper: CohortPlan) -> None:
    for patient in paper.patients:
        assert SEVERITY_OF_GRADE[patient.grade] == patient.severe
        if abs(patient.score - THRESHOLD) > DOUBT:
            assert patient.severe == (patient.score > THRESHOLD)
            assert not patient.flipped
    flipped = [patient for patient in paper.patients if patient.flipped]
    assert 0 < len(flipped) < 0.12 * len(paper.patients)
    assert all(patient.severe != (patient.score >= THRESHOLD) for patient in flipped)


def test_scans_fall_into_the_course_of_the_disease(paper: CohortPlan) -> None:
    for scan in paper.scans:
        assert paper.patient_of(scan).disease.activity(scan.day) > LEAST_ACTIVITY - 1e-6


def test_patients_mostly_stay_at_their_site(paper: CohortPlan) -> None:
    at_home = np.mean([scan.protocol.site == paper.patient_of(scan).site for scan in paper.scans])
    assert 0.8 < at_home < 0.95


def test_confounders_are_alike_in_both_classes(paper: CohortPlan) -> None:
    for name in ("atelectasis", "emphysema", "nodules", "scars"):
        share = [np.mean([getattr(p.confounders, name) > 0 for p in paper.patients if p.severe == s]) for s in (0, 1)]
        # two independent shares of 191 and 51 differ by more than three standard errors once in 370
        assert abs(share[0] - share[1]) < 3 * np.sqrt(0.25 / 191 + 0.25 / 51)


def test_a_plan_is_decided_by_its_seed() -> None:
    config = CohortConfig(size="small", scans=24, severe_fraction=0.4)
    assert plan_cohort(config, 3) == plan_cohort(config, 3)
    assert plan_cohort(config, 3) != plan_cohort(config, 4)


def test_lobe_masks_can_be_chosen(plan: CohortPlan) -> None:
    chosen = {plan.scans[2].scan_id, plan.scans[5].scan_id}
    masked = plan.with_lobe_masks(chosen)
    assert {scan.scan_id for scan in masked.scans if scan.lobe_mask} == chosen
    with pytest.raises(ConfigError, match="no such scan"):
        plan.with_lobe_masks(["nobody"])
    everyone = plan_cohort(CohortConfig(size="small", scans=5, lobe_masks="all"), 0)
    assert all(scan.lobe_mask for scan in everyone.scans)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scans": 0}, "at least 1"),
        ({"scans": 10, "patients": 20}, "a patient has 1 to"),
        ({"scans": 100, "patients": 2}, "a patient has 1 to"),
        ({"severe_fraction": 1.5}, "severe_fraction"),
        ({"lobe_masks": 700}, "lobe_masks"),
        ({"size": "huge"}, "neither paper nor small"),
    ],
)
def test_impossible_cohorts_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CohortConfig(**wrong)


def test_sites_are_named_in_the_scans(plan: CohortPlan) -> None:
    assert all(0 <= scan.protocol.site < len(SITES) for scan in plan.scans)
