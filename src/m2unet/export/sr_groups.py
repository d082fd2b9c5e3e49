"""Measurement groups of a structured report: severity, scores, parts, remarks (TID 1411 and 1501 of PS3.16)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from m2unet.export.codes import (
    ANATOMICAL_STRUCTURE,
    ATTENUATION,
    COMMENT,
    COMPLETENESS,
    HOUNSFIELD,
    INCOMPLETE,
    LUNG,
    MEAN,
    MILLILITRE,
    MORPHOLOGICALLY_ABNORMAL,
    NO_UNITS,
    OPACITY_CONCEPTS,
    OPACITY_PERCENT,
    PERCENT,
    PROBABILITY_SEVERE,
    SCORE_CONCEPTS,
    SCORE_UNIT,
    SEVERITY,
    SITES,
    STANDARD_DEVIATION,
    VOLUME,
    Concept,
)
from m2unet.export.dicom_seg import SEG_CLASS, SegReference, tracking_name
from m2unet.export.source import MANUFACTURER, Algorithm, SourceSeries
from m2unet.export.sr_content import PartMeasurements, ReportContent, ScoreMeasurement
from m2unet.export.uids import derive_uid


def measurement_groups(source: SourceSeries, content: ReportContent, seg: SegReference | None) -> Iterator[Any]:
    """The groups of a report, highdicom's: severity, scores, parts, remarks.

    Args:
        source: the series that was measured.
        content: what to say.
        seg: the segmentation whose segments the parts refer to.
    """
    if content.severity is not None:
        yield _severity_group(source, content)
    for score in content.scores:
        yield _score_group(source, score, content)
    for part in content.parts:
        yield _part_group(source, part, content, seg)
    if content.comments:
        yield _with_comments(_group(source, "remarks", LUNG, content.model), content.comments)


def _group(
    source: SourceSeries, name: str, site: Concept, made_by: Algorithm, *, parameters: bool = False, **more: Any
) -> Any:
    """A group without a region of interest (TID 1501); the algorithm's parameters are said once, not in every group."""
    import highdicom as hd

    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=derive_uid("group", *source.uids, name, made_by.name, made_by.version), identifier=tracking_name(name)
        ),
        finding_sites=[hd.sr.FindingSite(site.coded())],
        algorithm_id=_algorithm(made_by, parameters=parameters),
        **more,
    )


def _algorithm(made_by: Algorithm, *, parameters: bool = False) -> Any:
    import highdicom as hd

    return hd.sr.AlgorithmIdentification(
        name=made_by.name,
        version=made_by.version,
        parameters=(list(made_by.parameters) or None) if parameters else None,
        family=made_by.family.coded(),
        manufacturer=MANUFACTURER,
    )


def _severity_group(source: SourceSeries, content: ReportContent) -> Any:
    severity = content.severity
    assert severity is not None
    several = severity.spread is not None
    figures = [_figure(PROBABILITY_SEVERE, severity.probability, NO_UNITS, MEAN if several else None)]
    if severity.spread is not None:
        figures.append(_figure(PROBABILITY_SEVERE, severity.spread, NO_UNITS, STANDARD_DEVIATION))
    group = _group(
        source,
        "severity",
        SITES["lungs"],
        content.model,
        parameters=True,
        finding_type=SEVERITY.coded(),
        measurements=figures,
    )
    said = ["Research use only. Not a medical device; not for diagnosis or treatment."]
    if severity.bags:
        said.append(f"Mean over {severity.bags} random bags of slices and patches; the spread is over these bags.")
    if severity.answer:
        said.append(f"Answer: {severity.answer}.")
    return _with_comments(group, said)


def _score_group(source: SourceSeries, score: ScoreMeasurement, content: ReportContent) -> Any:
    figures = [] if score.total is None else [_figure(SCORE_CONCEPTS[score.name], score.total, SCORE_UNIT)]
    group = _group(
        source,
        score.name,
        SITES["lungs"],
        content.measured_by,
        parameters=True,
        finding_type=SCORE_CONCEPTS[score.name].coded(),
        measurements=figures or None,
    )
    return _with_comments(group, [score.reason] if score.reason else [])


def _part_group(source: SourceSeries, part: PartMeasurements, content: ReportContent, seg: SegReference | None) -> Any:
    import highdicom as hd

    is_opacity = part.name in OPACITY_CONCEPTS
    site = SITES["lungs"] if is_opacity else SITES[part.name]
    finding = OPACITY_CONCEPTS[part.name] if is_opacity else site
    category = MORPHOLOGICALLY_ABNORMAL if is_opacity else ANATOMICAL_STRUCTURE
    made_by = content.measured_by if is_opacity else content.model
    more: Mapping[str, Any] = {
        "finding_type": finding.coded(),
        "finding_category": category.coded(),
        "measurements": list(_part_figures(part, content.measured_by)) or None,
        "qualitative_evaluations": (
            [hd.sr.QualitativeEvaluation(COMPLETENESS.coded(), INCOMPLETE.coded())] if part.partial else None
        ),
    }
    if seg is None or part.name not in seg.segments:
        group = _group(source, part.name, site, made_by, **more)
    else:
        group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(
                uid=seg.tracking[part.name], identifier=tracking_name(part.name)
            ),
            referenced_segment=hd.sr.ReferencedSegment(
                sop_class_uid=SEG_CLASS,
                sop_instance_uid=seg.sop_instance_uid,
                segment_number=seg.segments[part.name],
                source_series=hd.sr.SourceSeriesForSegmentation(str(source.first.SeriesInstanceUID)),
            ),
            finding_sites=[hd.sr.FindingSite(site.coded())],
            algorithm_id=_algorithm(made_by),
            **more,
        )
    return _with_comments(group, [part.reason] if part.reason else [])


def _part_figures(part: PartMeasurements, measured_by: Algorithm) -> Iterator[Any]:
    if part.volume_ml is not None:
        yield _figure(VOLUME, part.volume_ml, MILLILITRE)
    if part.opacity_percent is not None:
        yield _figure(OPACITY_PERCENT, part.opacity_percent, PERCENT, made_by=measured_by)
    if part.mean_hu is not None:
        yield _figure(ATTENUATION, part.mean_hu, HOUNSFIELD, MEAN)


def _figure(
    name: Concept,
    value: float,
    unit: Concept,
    derivation: Concept | None = None,
    made_by: Algorithm | None = None,
) -> Any:
    import highdicom as hd

    return hd.sr.Measurement(
        name=name.coded(),
        value=value,
        unit=unit.coded(),
        derivation=None if derivation is None else derivation.coded(),
        algorithm_id=None if made_by is None else _algorithm(made_by),
    )


def _with_comments(group: Any, texts: Sequence[str]) -> Any:
    import highdicom as hd

    for text in texts:
        group[0].ContentSequence.append(
            hd.sr.TextContentItem(
                name=COMMENT.coded(), value=text, relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
            )
        )
    return group
