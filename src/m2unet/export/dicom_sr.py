"""Measurements and severity as a DICOM structured report after template TID 1500 (PS3.16), Comprehensive SR."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from m2unet import __version__
from m2unet.ct.volume import Volume
from m2unet.export.codes import CT_OF_CHEST, Concept, private_scheme
from m2unet.export.dicom_seg import SEG_CLASS, SegReference
from m2unet.export.seal import seal, series_number
from m2unet.export.source import (
    MANUFACTURER,
    ExportError,
    SeriesOptions,
    SourceSeries,
    building,
    read_source,
    require_highdicom,
)
from m2unet.export.sr_content import ReportContent, check_content
from m2unet.export.sr_groups import measurement_groups
from m2unet.export.uids import PLACEHOLDER_INSTANCE_UID, PLACEHOLDER_SERIES_UID, derive_uid


def write_report(
    volume: Volume,
    measurements: ReportContent,
    path: str | Path,
    *,
    seg: SegReference | None = None,
    series: SeriesOptions | None = None,
    source: SourceSeries | None = None,
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
        source: of the volume, where it was read before.

    Returns:
        SOP instance UID of the report.

    Raises:
        ExportError: the volume is not from DICOM, its files are gone, there is nothing to report, a name is unknown,
            or the segmentation is of another study.
        MissingExtraError: highdicom is not installed.
    """
    require_highdicom()
    options = series or SeriesOptions()
    check_content(measurements)
    source = source or read_source(volume)
    if seg is not None and seg.study_instance_uid != source.first.StudyInstanceUID:
        raise ExportError("The segmentation belongs to another study", mend="write it from the same volume first")
    with building("report"):
        dataset = _dataset(source, measurements, seg, options)
    seal(dataset, source, options.when, Path(path))
    return str(dataset.SOPInstanceUID)


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
        imaging_measurements=list(measurement_groups(source, content, seg)),
        title=hd.sr.CodedConcept("126000", "DCM", "Imaging Measurement Report"),
    )
    report[0].ContentSequence.insert(len(report[0].ContentSequence) - 1, _library(source))
    evidence = [*source.images, *([] if seg is None else [_as_evidence(seg, source)])]
    return hd.sr.ComprehensiveSR(
        evidence=evidence,
        content=report[0],
        series_instance_uid=PLACEHOLDER_SERIES_UID,
        series_number=series_number(source, options.number, 2),
        sop_instance_uid=PLACEHOLDER_INSTANCE_UID,
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
