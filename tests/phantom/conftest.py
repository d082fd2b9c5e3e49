"""Small phantoms shared by the tests of this room."""

from __future__ import annotations

from dataclasses import replace

import pytest

from m2unet.phantom.cohort import CohortConfig, CohortPlan, ScanPlan, plan_cohort
from m2unet.phantom.scan import Patient, PhantomScan, make_patient, make_scan


def shrunk(scan: ScanPlan, matrix: int = 56, slices: int = 14) -> ScanPlan:
    """The same scan on a few voxels: fewer slices over the same range, larger voxels over the same field of view."""
    p = scan.protocol
    fewer = min(slices, p.slices)
    step = p.step_mm * (p.slices - 1) / (fewer - 1)
    protocol = replace(p, matrix=matrix, pixel_mm=p.fov_mm / matrix, slices=fewer, step_mm=step, thickness_mm=1.0)
    return replace(scan, protocol=protocol)


def shrunk_plan(plan: CohortPlan, matrix: int = 56, slices: int = 14) -> CohortPlan:
    return replace(plan, scans=tuple(shrunk(scan, matrix, slices) for scan in plan.scans))


@pytest.fixture(scope="session")
def plan() -> CohortPlan:
    """Thirty small scans of twelve patients, five of them severe."""
    return plan_cohort(CohortConfig(size="small", scans=30, patients=12, severe_fraction=0.4), seed=7)


@pytest.fixture(scope="session")
def ill(plan: CohortPlan) -> Patient:
    """The patient with the most disease, placed in the anatomy."""
    return make_patient(max(plan.patients, key=lambda patient: patient.score))


@pytest.fixture(scope="session")
def scan(plan: CohortPlan, ill: Patient) -> PhantomScan:
    """A small scan of that patient."""
    name = next(s.scan_id for s in plan.scans if s.patient_id == ill.plan.patient_id)
    return make_scan(plan, name, ill)
