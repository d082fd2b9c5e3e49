"""What one dated scan contributes to a follow-up, and how exactly it was measured."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from m2unet.quantify.lobes import GROUPS
from m2unet.quantify.quantities import Quantities


@dataclass(frozen=True)
class ErrorModel:
    """Standard deviation of one measured opacity percentage, in points, and of the other figures.

    ``sqrt(floor^2 + (per_mm * thickness)^2 + (spread * P (100 - P) / 100)^2)``; for lobes ``lobe_factor`` times that.

    Attributes:
        floor: points, whatever the scan.
        per_mm: points a millimetre of slice thickness.
        spread: share of P (100 - P) / 100.
        lobe_factor: how much less certain a lobe is than both lungs.
        volume_share: standard deviation of a volume at one depth of breath, as a share of it.
        ct_severity_score, lobar_ct_score: standard deviation of a score.
        least_points: smallest change that counts as one.

    The defaults were fitted by maximum likelihood to 90 pairs of phantom scans, each pair of one day with other slices,
    kernels and breaths, measured in the true lobes: ``benchmarks/followup.py``. Patients may differ.
    """

    floor: float = 0.3
    per_mm: float = 0.155
    spread: float = 0.10
    lobe_factor: float = 1.3
    volume_share: float = 0.02
    ct_severity_score: float = 2.5
    lobar_ct_score: float = 1.0
    least_points: float = 2.0

    def sigma(self, percent: float, thickness_mm: float, *, lobe: bool = False) -> float:
        """Standard deviation in points of a percentage measured on slices so thick."""
        bulk = percent * (100.0 - percent) / 100.0
        found = math.sqrt(self.floor**2 + (self.per_mm * thickness_mm) ** 2 + (self.spread * bulk) ** 2)
        return found * (self.lobe_factor if lobe else 1.0)


@dataclass(frozen=True)
class PartFigures:
    """One lobe, one lung or both in one scan; None where it cannot be had.

    Attributes:
        volume_ml, opacity_ml, opacity_percent, consolidation_percent, mean_hu: as measured.
        partial: whether the field of view cuts it.
        reason: why figures are None, or why it is partial.
    """

    volume_ml: float | None = None
    opacity_ml: float | None = None
    opacity_percent: float | None = None
    consolidation_percent: float | None = None
    mean_hu: float | None = None
    partial: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class TimePoint:
    """One scan of a patient.

    Attributes:
        name: of the scan, without identifiers.
        date: day of the scan.
        slice_mm: distance between slices.
        thickness_mm: of a slice; the distance where no header tells it.
        aerated_hu: of :func:`m2unet.quantify.inflation.aerated_hu`, None where little of the lung is aerated.
        parts: by name of :data:`m2unet.quantify.lobes.GROUPS`.
        scores: ``ct_severity_score`` (0-40) and ``lobar_ct_score`` (0-25), None where a part is absent.
        severity: probability of severe, None without a model that classifies.
        severity_spread: its standard deviation over seeded bags.
        severity_reason: why there is no probability.
        lobes_by: where the lobes come from, in words.
        warnings: what reading noticed.
    """

    name: str
    date: datetime.date
    slice_mm: float
    thickness_mm: float
    aerated_hu: float | None
    parts: Mapping[str, PartFigures]
    scores: Mapping[str, int | None] = field(default_factory=dict)
    severity: float | None = None
    severity_spread: float | None = None
    lobes_by: str = ""
    warnings: tuple[str, ...] = ()
    severity_reason: str | None = None


def time_point(
    name: str,
    date: datetime.date,
    slice_mm: float,
    quantities: Quantities,
    *,
    thickness_mm: float | None = None,
    aerated: float | None,
    severity: tuple[float, float] | str,
    lobes_by: str = "",
    warnings: Sequence[str] = (),
) -> TimePoint:
    """The figures of one scan that a follow-up compares.

    Args:
        name, date, slice_mm, lobes_by, warnings: see :class:`TimePoint`.
        quantities: measured in the scan.
        thickness_mm: of a slice, from a header; None takes the distance, as slices of chest CTs seldom leave gaps.
        aerated: HU of aerated lung, see :func:`m2unet.quantify.inflation.aerated_hu`.
        severity: probability of severe and its spread over bags, or why there is none.
    """
    parts = {}
    for part in GROUPS:
        volume, opacity = quantities.volumes[part], quantities.opacity[part]
        parts[part] = PartFigures(
            volume_ml=volume.volume_ml,
            opacity_ml=opacity.opacity_ml,
            opacity_percent=opacity.opacity_percent,
            consolidation_percent=opacity.consolidation_percent,
            mean_hu=opacity.mean_hu,
            partial=volume.partial,
            reason=volume.reason,
        )
    probability, spread = (None, None) if isinstance(severity, str) else severity
    return TimePoint(
        name=name,
        date=date,
        slice_mm=slice_mm,
        thickness_mm=thickness_mm or slice_mm,
        aerated_hu=aerated,
        parts=parts,
        scores={
            "ct_severity_score": quantities.severity_score.total,
            "lobar_ct_score": quantities.lobar_score.total,
        },
        severity=probability,
        severity_spread=spread,
        lobes_by=lobes_by,
        warnings=tuple(warnings),
        severity_reason=severity if isinstance(severity, str) else None,
    )
