"""The same figures by subgroup; a group too small to say anything says so instead of showing a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from m2unet.errors import M2UNetError
from m2unet.evaluation.calibration import calibration
from m2unet.evaluation.classification import area_under_curve, check_scores, classification_metrics, group_patients

LEAST_PATIENTS = 5
"""A figure needs so many patients of each class it rests on."""

UNKNOWN = "unknown"
AGE_BANDS: tuple[tuple[float, str], ...] = (
    (40, "under 40"),
    (60, "40 to 59"),
    (80, "60 to 79"),
    (np.inf, "80 and over"),
)
SLICE_BANDS: tuple[tuple[float, str], ...] = (
    (1.5, "up to 1.5 mm"),
    (3.0, "over 1.5 to 3 mm"),
    (5.0, "over 3 to 5 mm"),
    (np.inf, "over 5 mm"),
)


def age_band(age: float | None) -> str | None:
    """The band of an age in years; None stays None."""
    return None if age is None else next(name for below, name in AGE_BANDS if age < below)


def slice_band(step_mm: float | None) -> str | None:
    """The band of a distance between slices; None stays None."""
    return None if step_mm is None else next(name for most, name in SLICE_BANDS if step_mm <= most + 1e-6)


@dataclass(frozen=True)
class Subgroup:
    """Figures of one group.

    Attributes:
        name: of the group.
        scans, patients, severe_patients: how many.
        sensitivity, specificity: at the operating point.
        auc, brier, intercept: ``intercept`` is calibration-in-the-large.
        reasons: for each figure that is None, why.
    """

    name: str
    scans: int
    patients: int
    severe_patients: int
    sensitivity: float | None
    specificity: float | None
    auc: float | None
    brier: float | None
    intercept: float | None
    reasons: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


def subgroup_figures(
    severity: ArrayLike,
    probability: ArrayLike,
    patients: Sequence[str],
    groups: Sequence[str | None],
    *,
    threshold: ArrayLike,
    least: int = LEAST_PATIENTS,
) -> tuple[Subgroup, ...]:
    """Figures of each group, the largest first; scans of no known group form the group ``unknown``.

    Args:
        severity, probability, patients: ``[n]``, as everywhere.
        groups: ``[n]``, the group of each scan, or None.
        threshold: called severe from this probability on; one for all, or ``[n]``.
        least: patients of a class below which figures that rest on it are None.

    Raises:
        M2UNetError: lengths differ, or as :func:`m2unet.evaluation.classification.classification_metrics`.
    """
    truth, score = check_scores(severity, probability)
    group_patients(patients, truth.size)
    if len(groups) != truth.size:
        raise M2UNetError("Each scan needs its group", found=f"{len(groups)} groups", expected=str(truth.size))
    names = np.array([UNKNOWN if group is None else group for group in groups], dtype=object)
    who = np.array(patients, dtype=object)
    order = sorted(set(names.tolist()), key=lambda name: (-int(np.sum(names == name)), name))
    called = score >= np.broadcast_to(np.asarray(threshold, dtype=np.float64), score.shape)
    return tuple(
        _of(name, truth[held], score[held], called[held], who[held], least)
        for name in order
        for held in [names == name]
    )


def _of(name: str, truth: Any, score: Any, called: Any, who: Any, least: int) -> Subgroup:
    severe = len(set(who[truth].tolist()))
    other = len(set(who[~truth].tolist()))
    patients = len(set(who.tolist()))  # one with both severe and other scans counts once
    found = classification_metrics(truth, called.astype(float))
    calibrated = calibration(truth, score)
    values: dict[str, float | None] = {
        "sensitivity": found.recall,
        "specificity": found.specificity,
        "auc": area_under_curve(truth, score),
        "brier": calibrated.brier,
        "intercept": calibrated.intercept,
    }
    needs = {"sensitivity": (severe,), "specificity": (other,), "brier": (patients,)}
    reasons = {}
    for figure in values:
        fewest = min(needs.get(figure, (severe, other)))
        if fewest < least:
            values[figure] = None
            reasons[figure] = (
                f"{severe} severe and {other} other patients; {least} are needed of each class it rests on"
                if figure != "brier"
                else f"{patients} patients; {least} are needed"
            )
    return Subgroup(name, int(truth.size), patients, severe, **values, reasons=reasons)
