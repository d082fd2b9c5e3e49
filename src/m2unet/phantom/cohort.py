"""The plan of a phantom cohort: patients, labels, days and protocols, drawn from a seed without drawing any picture.

The defaults are the cohort of He et al. 2020: 242 patients (51 severe), 666 scans, lobe masks for 152, seven sites.
Sites, numbers of scans and protocols are shared out alike within severe and non-severe patients, so nothing but the
picture tells them apart.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from m2unet.cohort.manifest import Grade
from m2unet.errors import ConfigError
from m2unet.phantom.anatomy import Anatomy, AnatomyParameters, draw_anatomy
from m2unet.phantom.confounders import Confounders, draw_confounders
from m2unet.phantom.disease import Disease, DiseaseState, draw_disease
from m2unet.phantom.protocol import SITES, LungBox, Protocol, Size, draw_protocol
from m2unet.phantom.severity import THRESHOLD, grade_of, severe_probability

PAPER_PATIENTS, PAPER_SCANS, PAPER_SEVERE, PAPER_MASKS = 242, 666, 51, 152
MOST_SCANS = 9
"""Scans a patient has at most."""

_FAITHFUL = 0.85  # share of scans taken at the patient's own site
_FIRST_DAY = datetime.date(2020, 1, 10)


@dataclass(frozen=True)
class CohortConfig:
    """What cohort to invent.

    Attributes:
        size: ``paper`` (512-666 voxels in plane, up to 732 slices) or ``small`` (160 x 160, at most 40 slices).
        scans: number of scans.
        patients: number of patients; None keeps the paper's scans a patient.
        severe_fraction: share of severe patients.
        lobe_masks: number of scans with a lobe mask, or ``all``; None keeps the paper's share.

    Raises:
        ConfigError: if the numbers cannot make a cohort.
    """

    size: Size = "paper"
    scans: int = PAPER_SCANS
    patients: int | None = None
    severe_fraction: float = PAPER_SEVERE / PAPER_PATIENTS
    lobe_masks: int | Literal["all"] | None = None

    def __post_init__(self) -> None:
        faults = []
        if self.size not in ("paper", "small"):
            faults.append(f"size {self.size!r} is neither paper nor small")
        if self.scans < 1:
            faults.append(f"scans is {self.scans}, at least 1 is needed")
        elif not 1 <= self.patient_count <= self.scans <= MOST_SCANS * self.patient_count:
            faults.append(f"{self.scans} scans of {self.patient_count} patients: a patient has 1 to {MOST_SCANS} scans")
        if not 0 <= self.severe_fraction <= 1:
            faults.append(f"severe_fraction {self.severe_fraction} is not between 0 and 1")
        if isinstance(self.lobe_masks, int) and not 0 <= self.lobe_masks <= self.scans:
            faults.append(f"lobe_masks {self.lobe_masks} is not between 0 and the number of scans")
        if faults:
            raise ConfigError("No phantom cohort can be made as asked", found="; ".join(faults))

    @property
    def patient_count(self) -> int:
        """Number of patients, worked out where not given."""
        return self.patients or max(1, round(self.scans * PAPER_PATIENTS / PAPER_SCANS))

    @property
    def severe_count(self) -> int:
        """Number of severe patients."""
        return round(self.severe_fraction * self.patient_count)

    @property
    def mask_count(self) -> int:
        """Number of scans with a lobe mask."""
        if self.lobe_masks == "all":
            return self.scans
        return round(self.scans * PAPER_MASKS / PAPER_SCANS) if self.lobe_masks is None else self.lobe_masks


@dataclass(frozen=True)
class PatientPlan:
    """One invented patient.

    Attributes:
        patient_id: pseudonym.
        seed: of everything random about the patient's pictures.
        anatomy: the healthy chest.
        age: years.
        site: index of the patient's own site.
        disease: the pneumonia and its course.
        confounders: what else there is to see.
        score: severity score at the peak.
        severe: the label.
        grade: clinical grade that goes with it.
    """

    patient_id: str
    seed: int
    anatomy: AnatomyParameters
    age: int
    site: int
    disease: Disease
    confounders: Confounders
    score: float
    severe: bool
    grade: Grade

    @property
    def flipped(self) -> bool:
        """Whether label noise put the patient on the other side of the threshold."""
        return self.severe != (self.score >= THRESHOLD)


@dataclass(frozen=True)
class ScanPlan:
    """One planned scan.

    Attributes:
        scan_id: unique name.
        patient_id: whose scan it is.
        seed: of the scan's noise.
        day: days after onset.
        date: day of the scan.
        protocol: how it is taken.
        state: the disease on that day.
        confounders: the patient's, with what varies from scan to scan.
        lobe_mask: whether the manifest gives its lobe mask.
    """

    scan_id: str
    patient_id: str
    seed: int
    day: float
    date: datetime.date
    protocol: Protocol
    state: DiseaseState
    confounders: Confounders
    lobe_mask: bool


@dataclass(frozen=True)
class CohortPlan:
    """A whole cohort on paper; equal configurations and seeds give equal plans."""

    config: CohortConfig
    seed: int
    patients: tuple[PatientPlan, ...]
    scans: tuple[ScanPlan, ...]

    @cached_property
    def _patients(self) -> dict[str, PatientPlan]:
        return {patient.patient_id: patient for patient in self.patients}

    @cached_property
    def _scans(self) -> dict[str, ScanPlan]:
        return {scan.scan_id: scan for scan in self.scans}

    def scan(self, scan_id: str) -> ScanPlan:
        """One scan by name.

        Raises:
            ConfigError: if the plan has no such scan.
        """
        if scan_id not in self._scans:
            raise ConfigError("The plan has no such scan", found=scan_id)
        return self._scans[scan_id]

    def patient_of(self, scan: ScanPlan) -> PatientPlan:
        """The patient a scan belongs to."""
        return self._patients[scan.patient_id]

    def with_lobe_masks(self, scan_ids: Iterable[str]) -> CohortPlan:
        """The same cohort where these scans, and no others, have lobe masks.

        Raises:
            ConfigError: if the plan has no such scan.
        """
        wanted = {self.scan(scan_id).scan_id for scan_id in scan_ids}
        return replace(self, scans=tuple(replace(scan, lobe_mask=scan.scan_id in wanted) for scan in self.scans))


def plan_cohort(config: CohortConfig | None = None, seed: int = 0) -> CohortPlan:
    """Plan a cohort; nothing is rendered.

    Args:
        config: what to invent; None is the paper's cohort.
        seed: decides everything.
    """
    config = config or CohortConfig()
    rng = np.random.default_rng([seed, 0])
    severe = _labels(config, rng)
    sites = _shared_out(severe, rng)
    counts = _scan_counts(config, severe, rng)
    patients, scans = [], []
    for index in range(config.patient_count):
        patient = _plan_patient(index, bool(severe[index]), int(sites[index]), seed)
        patients.append(patient)
        scans += _plan_scans(patient, int(counts[index]), config.size, np.random.default_rng([seed, 2, index]))
    masked = set(rng.permutation(len(scans))[: config.mask_count].tolist())
    return CohortPlan(
        config=config,
        seed=seed,
        patients=tuple(patients),
        scans=tuple(replace(scan, lobe_mask=index in masked) for index, scan in enumerate(scans)),
    )


# --- shares ----------------------------------------------------------------------------------------------------------


def _labels(config: CohortConfig, rng: np.random.Generator) -> np.ndarray:
    labels = np.zeros(config.patient_count, dtype=bool)
    labels[rng.permutation(config.patient_count)[: config.severe_count]] = True
    return labels


def _shared_out(severe: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A site for every patient, in the same proportions among severe and non-severe patients."""
    weights = np.array([site.weight for site in SITES])
    steps = np.cumsum(weights / weights.sum())
    sites = np.zeros(len(severe), dtype=int)
    for label in (False, True):
        members = rng.permutation(np.flatnonzero(severe == label))
        places = (np.arange(len(members)) + rng.random()) / max(len(members), 1)  # evenly spread, random offset
        sites[members] = np.minimum(np.searchsorted(steps, places, side="right"), len(SITES) - 1)
    return sites


def _scan_counts(config: CohortConfig, severe: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scans of every patient; severe patients have as many on average as the others."""
    counts = np.ones(len(severe), dtype=int)
    spare = config.scans - len(severe)
    shares = {True: round(spare * float(severe.mean()))}
    shares[False] = spare - shares[True]
    for label in (True, False):
        members = np.flatnonzero(severe == label)
        appetite = rng.gamma(1.5, size=len(members)) + 1e-3
        for _ in range(shares[label]):
            open_ = counts[members] < MOST_SCANS
            if not open_.any():  # only in tiny cohorts: the other class takes the rest
                members, appetite = np.arange(len(severe)), np.ones(len(severe))
                open_ = counts < MOST_SCANS
            odds = appetite * open_
            counts[members[rng.choice(len(members), p=odds / odds.sum())]] += 1
    return counts


# --- one patient -----------------------------------------------------------------------------------------------------


def _plan_patient(index: int, severe: bool, site: int, seed: int) -> PatientPlan:
    rng = np.random.default_rng([seed, 1, index])
    anatomy = draw_anatomy(rng)
    age = int(np.clip(rng.normal(50, 15), 18, 90))
    confounders = draw_confounders(rng)
    own_seed = int(rng.integers(2**62))
    disease = _disease_for(severe, rng)
    score = disease.peak.score
    return PatientPlan(
        patient_id=f"P{index + 1:04d}",
        seed=own_seed,
        anatomy=anatomy,
        age=age,
        site=site,
        disease=disease,
        confounders=confounders,
        score=score,
        severe=severe,
        grade=grade_of(score, severe),
    )


def _disease_for(severe: bool, rng: np.random.Generator) -> Disease:
    """Draw diseases and labels by the law until the label is the wanted one."""
    while True:
        disease = draw_disease(rng)
        if (rng.random() < severe_probability(disease.peak.score)) == severe:
            return disease


def _plan_scans(patient: PatientPlan, count: int, size: Size, rng: np.random.Generator) -> list[ScanPlan]:
    lungs = lung_box(Anatomy(patient.anatomy))
    course = patient.disease
    first = 0.6 * course.rise_days
    last = course.rise_days + course.plateau_days + 0.7 * course.half_life_days
    days = np.sort(rng.uniform(first, last, count))
    onset = _FIRST_DAY + datetime.timedelta(days=int(rng.integers(0, 90)))
    scans = []
    for number, day in enumerate(days, 1):
        elsewhere = int(rng.choice(len(SITES), p=[site.weight for site in SITES]))
        site = patient.site if rng.random() < _FAITHFUL else elsewhere
        scans.append(
            ScanPlan(
                scan_id=f"{patient.patient_id}-{number}",
                patient_id=patient.patient_id,
                seed=int(rng.integers(2**62)),
                day=float(day),
                date=onset + datetime.timedelta(days=int(day)),
                protocol=draw_protocol(rng, site, lungs, size),
                state=course.at(float(day)),
                confounders=patient.confounders.with_scan(rng),
                lobe_mask=False,
            )
        )
    return scans


def lung_box(anatomy: Anatomy) -> LungBox:
    """The box of a patient's lungs, from the anatomy."""
    low, high = anatomy.lung_extent_mm
    return LungBox(z=(low[0], high[0]), y=(low[1], high[1]), x=(low[2], high[2]))
