"""The plan of a phantom cohort: patients, labels, days and protocols, drawn from a seed without drawing any picture.

The defaults are the cohort of He et al. 2020: 242 patients (51 severe), 666 scans, lobe masks for 152, seven sites.
Labels are dealt after sites and protocols, so that nothing but the picture tells them.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from m2unet.cohort.manifest import Grade
from m2unet.errors import ConfigError
from m2unet.phantom.anatomy import AnatomyParameters, draw_anatomy
from m2unet.phantom.confounders import Confounders, draw_confounders
from m2unet.phantom.dealing import auc, deal_counts, deal_labels, deal_sites
from m2unet.phantom.disease import Disease, DiseaseState, draw_disease
from m2unet.phantom.protocol import SITES, LungBox, Protocol, Size, draw_protocol
from m2unet.phantom.severity import THRESHOLD, grade_of, severe_probability

PAPER_PATIENTS, PAPER_SCANS, PAPER_SEVERE, PAPER_MASKS = 242, 666, 51, 152
MOST_SCANS = 9
"""Scans a patient has at most."""

TELLING, TELLING_TOLERANCE = 0.982, 0.006
"""AUC of the score on the day of the scan against the label, which follows the score at the peak."""

_FAITHFUL = 0.85  # share of scans taken at the patient's own site
_POOL = 6  # diseases drawn for each one used
_TRIES = 12
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
        inspiration: depth of breath, 1 full, 0 breathed out.
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
    inspiration: float = field(default=1.0, repr=False)


@dataclass(frozen=True)
class CohortPlan:
    """A whole cohort on paper; equal configurations and seeds give equal plans.

    Attributes:
        config: what was asked for.
        seed: that decided everything.
        patients, scans: the plan.
        course: whether the scans follow each patient through the disease, see :mod:`m2unet.phantom.course`.
    """

    config: CohortConfig
    seed: int
    patients: tuple[PatientPlan, ...]
    scans: tuple[ScanPlan, ...]
    course: bool = False

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

    Anatomies, sites and protocols are drawn first; labels are dealt to finished patients, see
    :mod:`m2unet.phantom.dealing`; the disease follows from the label by the law of :mod:`m2unet.phantom.severity`.

    Args:
        config: what to invent; None is the paper's cohort.
        seed: decides everything.
    """
    config = config or CohortConfig()
    rng = np.random.default_rng([seed, 0])
    counts = deal_counts(config.patient_count, config.scans, MOST_SCANS, rng)
    sites = deal_sites(config.patient_count, tuple(site.weight for site in SITES), rng)
    drafts = [_draft(index, int(sites[index]), int(counts[index]), config.size, seed) for index in range(len(counts))]
    owner = np.repeat(np.arange(len(counts)), counts)
    features = np.array([_features(protocol) for draft in drafts for protocol in draft.protocols])
    severe = deal_labels(config.severe_count, owner, features, rng)
    diseases = _fitting_diseases(severe, drafts, np.random.default_rng([seed, 2]))
    patients, scans = [], []
    for draft, label, disease in zip(drafts, severe, diseases, strict=True):
        patient = _patient(draft, bool(label), disease)
        patients.append(patient)
        scans += _scans(draft, patient)
    masked = set(rng.permutation(len(scans))[: config.mask_count].tolist())
    return CohortPlan(
        config=config,
        seed=seed,
        patients=tuple(patients),
        scans=tuple(replace(scan, lobe_mask=index in masked) for index, scan in enumerate(scans)),
    )


def lung_box(parameters: AnatomyParameters) -> LungBox:
    """A box that holds a patient's lungs, from the parameters alone, with some millimetres to spare."""
    wide = parameters.half_width_mm * (1 + abs(parameters.asymmetry)) + abs(parameters.scoliosis_mm) + 6
    deep = parameters.half_depth_mm + 6
    return LungBox(z=(-4.0, parameters.lung_height_mm + 4.0), y=(-deep, deep), x=(-wide, wide))


# --- steps of the plan -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Draft:
    """A patient without a label: everything that must not know it."""

    index: int
    seed: int
    anatomy: AnatomyParameters
    age: int
    site: int
    confounders: Confounders
    protocols: tuple[Protocol, ...]
    of_scans: tuple[Confounders, ...]
    scan_seeds: tuple[int, ...]
    times: tuple[float, ...]
    onset: datetime.date


def _draft(index: int, site: int, count: int, size: Size, seed: int) -> _Draft:
    rng = np.random.default_rng([seed, 1, index])
    anatomy = draw_anatomy(rng)
    lungs = lung_box(anatomy)
    confounders = draw_confounders(rng)
    protocols = []
    for _ in range(count):
        elsewhere = int(rng.choice(len(SITES), p=[place.weight for place in SITES]))
        at = site if rng.random() < _FAITHFUL else elsewhere
        protocols.append(draw_protocol(rng, at, lungs, size))
    return _Draft(
        index=index,
        seed=int(rng.integers(2**62)),
        anatomy=anatomy,
        age=int(np.clip(rng.normal(50, 15), 18, 90)),
        site=site,
        confounders=confounders,
        protocols=tuple(protocols),
        of_scans=tuple(confounders.with_scan(rng) for _ in range(count)),
        scan_seeds=tuple(int(rng.integers(2**62)) for _ in range(count)),
        times=tuple(float(time) for time in np.sort(rng.random(count))),
        onset=_FIRST_DAY + datetime.timedelta(days=int(rng.integers(0, 90))),
    )


def _features(protocol: Protocol) -> list[float]:
    """What a classifier that cheats would look at."""
    site = [float(protocol.site == index) for index in range(len(SITES))]
    along = protocol.slices * protocol.step_mm
    return [protocol.step_mm, protocol.pixel_mm, float(protocol.slices), protocol.fov_mm, along, *site]


def _fitting_diseases(severe: NDArray[np.bool_], drafts: list[_Draft], rng: np.random.Generator) -> list[Disease]:
    """Draw diseases until the score of the day tells the label about as well in this cohort as in any other.

    Else the borderline patients of a small cohort make it much easier or harder than the next one.
    """
    owner = np.repeat(np.arange(len(drafts)), [len(draft.times) for draft in drafts])
    nearest, closest = _diseases(severe, rng), np.inf
    if min(severe.sum(), (~severe).sum()) < 5:
        return nearest
    for _ in range(_TRIES):
        diseases = _diseases(severe, rng)
        scores = [
            disease.at(disease.day(time)).score
            for draft, disease in zip(drafts, diseases, strict=True)
            for time in draft.times
        ]
        distance = abs(auc(np.array(scores), severe[owner]) - TELLING)
        if distance < closest:
            nearest, closest = diseases, distance
        if closest <= TELLING_TOLERANCE:
            break
    return nearest


def _diseases(severe: NDArray[np.bool_], rng: np.random.Generator) -> list[Disease]:
    """A disease for each patient: drawn with its label by the law, and spread evenly over the scores of that label."""
    found: dict[int, Disease] = {}
    for label in (False, True):
        members = rng.permutation(np.flatnonzero(severe == label))
        pool = sorted((_disease_for(label, rng) for _ in range(_POOL * len(members))), key=lambda d: d.peak.score)
        for rank, member in enumerate(members):
            found[int(member)] = pool[_POOL * rank + int(rng.integers(_POOL))]
    return [found[index] for index in range(len(severe))]


def _disease_for(severe: bool, rng: np.random.Generator) -> Disease:
    """Draw diseases and labels by the law until the label is the wanted one."""
    while True:
        disease = draw_disease(rng)
        if (rng.random() < severe_probability(disease.peak.score)) == severe:
            return disease


def _patient(draft: _Draft, severe: bool, disease: Disease) -> PatientPlan:
    score = disease.peak.score
    return PatientPlan(
        patient_id=f"P{draft.index + 1:04d}",
        seed=draft.seed,
        anatomy=draft.anatomy,
        age=draft.age,
        site=draft.site,
        disease=disease,
        confounders=draft.confounders,
        score=score,
        severe=severe,
        grade=grade_of(score, severe),
    )


def _scans(draft: _Draft, patient: PatientPlan) -> list[ScanPlan]:
    course = patient.disease
    scans = []
    for number, time in enumerate(draft.times):
        day = course.day(time)
        scans.append(
            ScanPlan(
                scan_id=f"{patient.patient_id}-{number + 1}",
                patient_id=patient.patient_id,
                seed=draft.scan_seeds[number],
                day=day,
                date=draft.onset + datetime.timedelta(days=int(day)),
                protocol=draft.protocols[number],
                state=course.at(day),
                confounders=draft.of_scans[number],
                lobe_mask=False,
            )
        )
    return scans
