"""Measurements and severity as a DICOM structured report after template TID 1500 (PS3.16), Comprehensive SR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from m2unet import __version__
from m2unet.ct.volume import Volume
from m2unet.export.codes import (
    ANATOMICAL_STRUCTURE,
    ATTENUATION,
    COMMENT,
    COMPLETENESS,
    CT_OF_CHEST,
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
    private_scheme,
)
from m2unet.export.dicom_seg import LOBE_ALGORITHM, OPACITY_ALGORITHM, SEG_CLASS, SegReference, tracking_name
from m2unet.export.seal import seal, series_number
from m2unet.export.source import (
    MANUFACTURER,
    Algorithm,
    ExportError,
    SeriesOptions,
    SourceSeries,
    building,
    read_source,
    require_highdicom,
)
from m2unet.export.uids import PLACEHOLDER_UID, derive_uid


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
    """

    probability: float
    spread: float | None = None
    bags: int | None = None


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


def write_report(
    volume: Volume,
    measurements: ReportContent,
    path: str | Path,
    *,
    seg: SegReference | None = None,
    series: SeriesOptions | None = None,
) -> str:
    """Write the measurements as a structured report in the source's study.

    Every part whose segment is in ``seg`` becomes a group that refers to it (TID 1411), every other figure a group of
    its own (TID 1501). The image library lists all source images. The report is complete, preliminary and unverified,
    marked as research. The same input gives the same bytes, see :func:`m2unet.export.source.seal`.

    Args:
        volume: read from a DICOM series.
        measurements: what to report.
        path: file to write or replace, e.g. ``report.sr.dcm``.
        seg: the segmentation of the same volume, from :func:`m2unet.export.dicom_seg.write_segmentation`.
        series: number, description and date of the new series.

    Returns:
        SOP instance UID of the report.

    Raises:
        ExportError: the volume is not from DICOM, its files are gone, there is nothing to report, a name is unknown,
            or the segmentation is of another study.
        MissingExtraError: highdicom is not installed.
    """
    require_highdicom()
    options = series or SeriesOptions()
    _check(measurements)
    source = read_source(volume)
    if seg is not None and seg.study_instance_uid != source.first.StudyInstanceUID:
        raise ExportError("The segmentation belongs to another study", mend="write it from the same volume first")
    with building("report"):
        dataset = _dataset(source, measurements, seg, options)
    seal(dataset, source, options.when, Path(path))
    return str(dataset.SOPInstanceUID)


def _check(content: ReportContent) -> None:
    if not (content.parts or content.scores or content.severity):
        raise ExportError("There is nothing to report", expected="a part, a score or the severity")
    for part in content.parts:
        if part.name not in SITES and part.name not in OPACITY_CONCEPTS:
            known = ", ".join([*SITES, *OPACITY_CONCEPTS])
            raise ExportError("A part of the report is unknown", found=part.name, expected=known)
    for score in content.scores:
        if score.name not in SCORE_CONCEPTS:
            raise ExportError("A score is unknown", found=score.name, expected=", ".join(SCORE_CONCEPTS))


def _dataset(source: SourceSeries, content: ReportContent, seg: SegReference | None, options: SeriesOptions) -> Any:
    import highdicom as hd

    model = content.model
    observer = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=derive_uid("device", model.name, model.version),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=model.name,
        serial_number=model.version,
    )
    device = hd.sr.CodedConcept("121007", "DCM", "Device")
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(hd.sr.ObserverContext(device, observer)),
        procedure_reported=CT_OF_CHEST.coded(),
        imaging_measurements=list(_groups(source, content, seg)),
        title=hd.sr.CodedConcept("126000", "DCM", "Imaging Measurement Report"),
    )
    report[0].ContentSequence.insert(len(report[0].ContentSequence) - 1, _library(source))
    evidence = [*source.images, *([] if seg is None else [_as_evidence(seg, source)])]
    return hd.sr.ComprehensiveSR(
        evidence=evidence,
        content=report[0],
        series_instance_uid=PLACEHOLDER_UID,
        series_number=series_number(source, options.number, 2),
        sop_instance_uid=PLACEHOLDER_UID,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=model.name,
        software_versions=(__version__, model.version) if model.version != __version__ else __version__,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=options.description or "m2unet measurements (research use only)",
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        coding_schemes=[private_scheme()],
        specific_character_set="ISO_IR 192",
    )


def _as_evidence(seg: SegReference, source: SourceSeries) -> Any:
    return SimpleNamespace(
        StudyInstanceUID=source.first.StudyInstanceUID,
        SeriesInstanceUID=seg.series_instance_uid,
        SOPInstanceUID=seg.sop_instance_uid,
        SOPClassUID=SEG_CLASS,
    )


def _library(source: SourceSeries) -> Any:
    """The image library (TID 1600): every source image by reference, its descriptors being in the images."""
    import highdicom as hd

    contains = hd.sr.RelationshipTypeValues.CONTAINS
    library = hd.sr.ContainerContentItem(_dcm("111028", "Image Library"), relationship_type=contains)
    group = hd.sr.ContainerContentItem(_dcm("126200", "Image Library Group"), relationship_type=contains)
    modality = hd.sr.CodeContentItem(
        name=_dcm("121139", "Modality"),
        value=_dcm("CT", "Computed Tomography"),
        relationship_type=hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT,
    )
    group.ContentSequence = hd.sr.ContentSequence(
        [
            modality,
            *(
                hd.sr.ImageContentItem(
                    name=hd.sr.CodedConcept("260753009", "SCT", "Source"),
                    referenced_sop_class_uid=image.SOPClassUID,
                    referenced_sop_instance_uid=image.SOPInstanceUID,
                    relationship_type=contains,
                )
                for image in source.images
            ),
        ]
    )
    library.ContentSequence = hd.sr.ContentSequence([group])
    return library


def _dcm(value: str, meaning: str) -> Any:
    return Concept(value, "DCM", meaning).coded()


def _groups(source: SourceSeries, content: ReportContent, seg: SegReference | None) -> Iterator[Any]:
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
