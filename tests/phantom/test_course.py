"""Courses: dated scans over rise, peak and resolution; breath moves the lungs and the lesions in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from m2unet.cohort.manifest import read_manifest
from m2unet.errors import ConfigError
from m2unet.phantom.cohort import CohortConfig, CohortPlan, plan_cohort
from m2unet.phantom.course import RESOLVING, RISING, CourseConfig, plan_course
from m2unet.phantom.scan import make_patient, make_scan
from m2unet.phantom.writer import write_cohort

from .conftest import shrunk_plan


@pytest.fixture(scope="module")
def courses() -> CohortPlan:
    return plan_course(CourseConfig(patients=6, scans=4), seed=5)


def test_each_patient_rises_peaks_and_resolves(courses: CohortPlan) -> None:
    for patient in courses.patients:
        scans = [scan for scan in courses.scans if scan.patient_id == patient.patient_id]
        activity = [patient.disease.activity(scan.day) for scan in scans]
        assert RISING[0] <= activity[0] <= RISING[1]
        assert activity[1] == 1.0
        assert RESOLVING[0] >= activity[2] > activity[3] >= RESOLVING[1]
        dates = [scan.date for scan in scans]
        assert dates == sorted(set(dates)), "a later scan has a later date"
        # whole days, as a manifest has them, lie within a day of the disease's clock
        assert abs((dates[-1] - dates[0]).days - (scans[-1].day - scans[0].day)) < 1


def test_the_seed_decides_everything(courses: CohortPlan) -> None:
    assert plan_course(CourseConfig(patients=6, scans=4), seed=5) == courses
    assert plan_course(CourseConfig(patients=6, scans=4), seed=6) != courses


def test_existing_cohorts_stay_as_they_are() -> None:
    """The repr of a plan decides the fingerprints of its files: a field for courses must not show in it."""
    plan = plan_cohort(CohortConfig(size="small", scans=30, patients=12, severe_fraction=0.4), seed=7)
    text = repr([(scan, plan.patient_of(scan)) for scan in plan.scans])
    assert "inspiration" not in text
    assert all(scan.inspiration == 1.0 for scan in plan.scans)


def test_a_shallower_breath_lifts_the_diaphragm_and_takes_the_lesions_along(courses: CohortPlan) -> None:
    worst = max(courses.patients, key=lambda patient: patient.score)
    scan = next(s for s in courses.scans if s.patient_id == worst.patient_id and s.scan_id.endswith("-2"))
    patient = make_patient(worst)
    found = {}
    for depth in (1.0, 0.6):
        small = shrunk_plan(replace(courses, scans=(replace(scan, inspiration=depth),)), matrix=80, slices=24)
        made = make_scan(small, scan.scan_id, patient)
        lungs = np.isin(made.lobes, (1, 2, 3, 4, 5))
        healthy = lungs & (made.lesions == 0)
        found[depth] = (
            made.truth.lobe_ml.sum(),
            np.median(made.volume.array[healthy]),
            100 * made.truth.lesion_ml[:, 1:].sum() / made.truth.lobe_ml.sum(),
            center_of_mass(made.lesions > 0)[0],
        )
    (full_ml, full_hu, full_percent, full_height), (less_ml, less_hu, less_percent, height) = found[1.0], found[0.6]
    assert less_ml < 0.9 * full_ml
    assert less_hu > full_hu + 15
    assert abs(less_percent - full_percent) < 0.2 * full_percent
    assert height > full_height, "lesions move to the head with the lung"


def test_the_manifest_holds_the_dates(courses: CohortPlan, tmp_path_factory: pytest.TempPathFactory) -> None:
    few = replace(shrunk_plan(courses), scans=shrunk_plan(courses).scans[:2])
    manifest = read_manifest(write_cohort(few, tmp_path_factory.mktemp("course"), workers=1))
    assert [row.date for row in manifest] == [scan.date for scan in few.scans]
    assert "inspiration" in (manifest.path.parent / "truth.csv").read_text().splitlines()[0]
    with pytest.raises(ConfigError, match="another phantom cohort"):
        write_cohort(replace(few, course=False), manifest.path.parent, workers=1)


@pytest.mark.parametrize("scans", [1, 10])
def test_a_course_has_two_to_nine_scans(scans: int) -> None:
    with pytest.raises(ConfigError, match="at least two scans"):
        CourseConfig(scans=scans)
