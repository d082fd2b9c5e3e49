"""What a structured report says: figures by part, scores, severity, remarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from m2unet.export.codes import OPACITY_CONCEPTS, SCORE_CONCEPTS, SITES
from m2unet.export.dicom_seg import LOBE_ALGORITHM, OPACITY_ALGORITHM
from m2unet.export.source import Algorithm, ExportError


@dataclass(frozen=True)
class PartMeasurements:
    """Figures of a lobe, a lung, both lungs, or one kind of opacity. A figure that is None is left out.

    Attributes:
        name: of :data:`m2unet.quantify.lobes.GROUPS`, or ``ground_glass`` or ``consolidation``.
        volume_ml: millilitres.
        opacity_percent: opacified share of the volume, 0-100.
        mean_hu: mean attenuation.
        partial: the volume is known to be too small.
        reason: why figures are missing or the part is incomplete; written as a comment.
    """

    name: str
    volume_ml: float | None = None
    opacity_percent: float | None = None
    mean_hu: float | None = None
    partial: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class ScoreMeasurement:
    """One of the two CT scores.

    Attributes:
        name: ``ct-severity-score`` (0-40) or ``lobar-ct-score`` (0-25).
        total: the sum; None if a part has no score.
        reason: why it is None; written as a comment.
    """

    name: str
    total: int | None
    reason: str | None = None


@dataclass(frozen=True)
class SeverityMeasurement:
    """The model's severity estimate.

    Attributes:
        probability: of the severe class, 0-1, mean over bags.
        spread: standard deviation over bags; None for a single bag.
        bags: how many bags were averaged.
        answer: severe, non-severe or uncertain, with the reasons, in words; None if it was not judged.
    """

    probability: float
    spread: float | None = None
    bags: int | None = None
    answer: str | None = None


@dataclass(frozen=True)
class ReportContent:
    """What a report says.

    Attributes:
        parts: lobes, lungs and opacities, in the order to be listed.
        scores: CT scores.
        severity: None if it was not estimated.
        comments: remarks on the whole, such as quality findings, without identifiers.
        model: the network that made lobes and severity: the device observer.
        measured_by: what made opacities and scores.
    """

    parts: Sequence[PartMeasurements] = ()
    scores: Sequence[ScoreMeasurement] = ()
    severity: SeverityMeasurement | None = None
    comments: Sequence[str] = ()
    model: Algorithm = field(default=LOBE_ALGORITHM)
    measured_by: Algorithm = field(default=OPACITY_ALGORITHM)


def check_content(content: ReportContent) -> None:
    """Check that there is something to report and that every name is known.

    Raises:
        ExportError: there is nothing, or a part or score is unknown.
    """
    if not (content.parts or content.scores or content.severity):
        raise ExportError("There is nothing to report", expected="a part, a score or the severity")
    for part in content.parts:
        if part.name not in SITES and part.name not in OPACITY_CONCEPTS:
            known = ", ".join([*SITES, *OPACITY_CONCEPTS])
            raise ExportError("A part of the report is unknown", found=part.name, expected=known)
    for score in content.scores:
        if score.name not in SCORE_CONCEPTS:
            raise ExportError("A score is unknown", found=score.name, expected=", ".join(SCORE_CONCEPTS))
