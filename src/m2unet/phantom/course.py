"""Patients followed through their disease: several dated scans each, while it rises, at its peak, while it resolves.

Patients, labels and diseases are those of :func:`m2unet.phantom.cohort.plan_cohort`; only days, protocols and breaths
are new. A patient is scanned at other sites now and then, with other slices, and breathes in less deeply than before:
what an assessment over time must not take for a change.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace

import numpy as np

from m2unet.errors import ConfigError
from m2unet.phantom.cohort import MOST_SCANS, CohortConfig, CohortPlan, PatientPlan, ScanPlan, lung_box, plan_cohort
from m2unet.phantom.disease import Disease
from m2unet.phantom.protocol import SITES, Size, draw_protocol

BREATH = (0.7, 1.0)
"""Depth of breath, uniform: patients with pneumonia do not hold a full breath."""

RISING = (0.15, 0.70)
"""Share of the peak extent at the first scan."""

RESOLVING = (0.85, 0.12)
"""Share of the peak extent from the first to the last scan after the plateau."""

_FAITHFUL = 0.7  # share of scans at the patient's own site
_FIRST_DAY = datetime.date(2020, 1, 10)
_STREAM = 0xC0


@dataclass(frozen=True)
class CourseConfig:
    """What courses to invent.

    Attributes:
        size: as :class:`m2unet.phantom.cohort.CohortConfig`.
        patients: number of patients.
        scans: scans of each patient: one while the disease rises, one at the peak, the others while it resolves.
        severe_fraction: share of severe patients.

    Raises:
        ConfigError: if the numbers cannot make courses.
    """

    size: Size = "small"
    patients: int = 12
    scans: int = 4
    severe_fraction: float = 0.5

    def __post_init__(self) -> None:
        if not 2 <= self.scans <= MOST_SCANS:
            raise ConfigError(
                "A course needs at least two scans a patient", found=self.scans, expected=f"2 to {MOST_SCANS}"
            )
        _ = self.cohort  # checks the rest

    @property
    def cohort(self) -> CohortConfig:
        """The same numbers as a cohort."""
        return CohortConfig(
            size=self.size,
            scans=self.patients * self.scans,
            patients=self.patients,
            severe_fraction=self.severe_fraction,
            lobe_masks="all",
        )


def plan_course(config: CourseConfig | None = None, seed: int = 0) -> CohortPlan:
    """Plan the courses of some patients; nothing is rendered.

    Args:
        config: what to invent.
        seed: decides everything.
    """
    config = config or CourseConfig()
    base = plan_cohort(replace(config.cohort, scans=config.patients), seed)
    scans: list[ScanPlan] = []
    for index, patient in enumerate(base.patients):
        scans += _patient_scans(patient, config, np.random.default_rng([seed, _STREAM, index]))
    return CohortPlan(config.cohort, seed, base.patients, tuple(scans), course=True)


def course_days(disease: Disease, scans: int, rng: np.random.Generator) -> list[float]:
    """Days after onset of a patient's scans, ascending.

    Args:
        disease: its course.
        scans: at least 2: the first while it rises, the second on the plateau, the others while it resolves, the
            activity of each lower than of the one before.
        rng: source of randomness.
    """
    rising = disease.window(float(rng.uniform(*RISING)))[0]
    peak = disease.rise_days + disease.plateau_days * float(rng.uniform(0.1, 0.9))
    days = [rising, peak]
    first, last = np.log2(RESOLVING)
    width = (last - first) / max(scans - 2, 1)
    for number in range(scans - 2):
        activity = 2.0 ** (first + width * (number + float(rng.uniform(0.2, 0.8))))
        days.append(disease.window(float(activity))[1])
    return days


def _patient_scans(patient: PatientPlan, config: CourseConfig, rng: np.random.Generator) -> list[ScanPlan]:
    lungs = lung_box(patient.anatomy)
    onset = _FIRST_DAY + datetime.timedelta(days=int(rng.integers(0, 90)))
    weights = [site.weight for site in SITES]
    found = []
    for number, day in enumerate(course_days(patient.disease, config.scans, rng), 1):
        elsewhere = int(rng.choice(len(SITES), p=weights))
        site = patient.site if rng.random() < _FAITHFUL else elsewhere
        found.append(
            ScanPlan(
                scan_id=f"{patient.patient_id}-{number}",
                patient_id=patient.patient_id,
                seed=int(rng.integers(2**62)),
                day=day,
                date=onset + datetime.timedelta(days=int(day)),
                protocol=draw_protocol(rng, site, lungs, config.size),
                state=patient.disease.at(day),
                confounders=patient.confounders.with_scan(rng),
                lobe_mask=True,
                inspiration=float(rng.uniform(*BREATH)),
            )
        )
    return found
