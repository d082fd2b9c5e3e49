"""Lobes and opacities as a DICOM Segmentation (PS3.3 A.51), BINARY, slice by slice on the source images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet import __version__
from m2unet.anatomy import AIRWAY, LOBE_BY_ABBREVIATION, LOBES
from m2unet.ct.volume import Volume
from m2unet.export.codes import (
    ANATOMICAL_STRUCTURE,
    LOBE_CONCEPTS,
    LUNG,
    MORPHOLOGICALLY_ABNORMAL,
    NEIGHBOURHOOD_ANALYSIS,
    OPACITY_COLOURS,
    OPACITY_CONCEPTS,
    Concept,
)
from m2unet.export.mask_stack import MaskStack
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
from m2unet.export.uids import PLACEHOLDER_INSTANCE_UID, PLACEHOLDER_SERIES_UID, derive_uid
from m2unet.quantify.lobes import check_mask, count_codes

SEG_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
OPACITY_CODES: Mapping[str, int] = {"ground_glass": 1, "consolidation": 2}
LOBE_ALGORITHM = Algorithm("m2unet lobes")
OPACITY_ALGORITHM = Algorithm("m2unet opacity rule", family=NEIGHBOURHOOD_ANALYSIS)


@dataclass(frozen=True)
class SegReference:
    """What a report needs to refer to a segmentation.

    Attributes:
        path: its file.
        study_instance_uid, series_instance_uid, sop_instance_uid: its identity.
        segments: segment number by name: ``RUL`` to ``LLL``, ``ground_glass``, ``consolidation``; those present.
        tracking: tracking UID by the same names.
    """

    path: Path
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    segments: Mapping[str, int]
    tracking: Mapping[str, str]


@dataclass(frozen=True)
class _Segment:
    name: str
    code: int
    category: Concept
    concept: Concept
    colour: tuple[int, int, int]
    algorithm: Algorithm
    anatomy: Concept | None = None


def write_segmentation(
    volume: Volume,
    lobes: NDArray[Any],
    path: str | Path,
    *,
    opacity: NDArray[np.uint8] | None = None,
    algorithm: Algorithm = LOBE_ALGORITHM,
    opacity_algorithm: Algorithm = OPACITY_ALGORITHM,
    series: SeriesOptions | None = None,
    source: SourceSeries | None = None,
) -> SegReference:
    """Write the lobes, and the opacities if given, as one DICOM Segmentation in the source's study.

    Each of the five lobes and of the two kinds of opacity that has a voxel becomes a segment. The airway (code 6) is
    left out. The same input gives the same bytes, see :func:`m2unet.export.source.seal`.

    Args:
        volume: read from a DICOM series.
        lobes: ``[z, y, x]`` lobe codes of :mod:`m2unet.anatomy` on the volume's grid.
        path: file to write or replace, e.g. ``lobes.seg.dcm``.
        opacity: ``[z, y, x]`` 0 none, 1 ground glass, 2 consolidation.
        algorithm: what made the lobes.
        opacity_algorithm: what made the opacities.
        series: number, description and date of the new series.
        source: of the volume, where it was read before.

    Raises:
        ExportError: the volume is not from DICOM, its files are gone, or the masks are empty or on another grid.
        MissingExtraError: highdicom is not installed.
    """
    require_highdicom()
    options = series or SeriesOptions()
    segments, masks = _segments(volume, lobes, opacity, algorithm, opacity_algorithm)
    if not segments:
        raise ExportError("There is nothing to segment: both masks are empty", mend="write the report alone")
    source = source or read_source(volume)
    tracking = {
        segment.name: derive_uid("segment", *source.uids, segment.name, masks.digest(number))
        for number, segment in enumerate(segments)
    }
    if source.frames is not None:
        masks = masks.reordered(np.argsort(source.frames))
    with building("segmentation"):
        dataset = _dataset(source, segments, masks, tracking, options)
    seal(dataset, source, options.when, Path(path))
    return SegReference(
        path=Path(path),
        study_instance_uid=str(dataset.StudyInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        segments={segment.name: number for number, segment in enumerate(segments, 1)},
        tracking=tracking,
    )


def _segments(
    volume: Volume,
    lobes: NDArray[Any],
    opacity: NDArray[np.uint8] | None,
    algorithm: Algorithm,
    opacity_algorithm: Algorithm,
) -> tuple[list[_Segment], MaskStack]:
    """The segments that have a voxel, and their masks in the source's order."""
    codes = check_mask(lobes)
    counts = count_codes(codes, AIRWAY + 1)
    found = [
        _Segment(lobe.abbreviation, lobe.code, ANATOMICAL_STRUCTURE, concept, lobe.colour, algorithm)
        for lobe, concept in zip(LOBES, LOBE_CONCEPTS.values(), strict=True)
        if counts[lobe.code]
    ]
    bits = np.zeros(volume.source.shape, dtype=np.uint8)
    _set_bits(bits, volume.to_source(codes), found)
    if opacity is None:
        return found, MaskStack(bits, len(found))
    if opacity.size and int(opacity.max()) > max(OPACITY_CODES.values()):
        raise ExportError("The opacity mask holds an unknown code", found=int(opacity.max()), expected="0-2")
    counts = count_codes(opacity, max(OPACITY_CODES.values()) + 1)
    kinds = [
        _Segment(
            name, code, MORPHOLOGICALLY_ABNORMAL, OPACITY_CONCEPTS[name], OPACITY_COLOURS[name], opacity_algorithm, LUNG
        )
        for name, code in OPACITY_CODES.items()
        if counts[code]
    ]
    _set_bits(bits, volume.to_source(opacity), kinds, first=len(found))
    return [*found, *kinds], MaskStack(bits, len(found) + len(kinds))


def _set_bits(
    bits: NDArray[np.uint8], in_order: NDArray[np.uint8], segments: Sequence[_Segment], first: int = 0
) -> None:
    """Set a bit for each segment, of the codes in one mask, from bit ``first`` on."""
    table = np.zeros(256, dtype=np.uint8)
    for number, segment in enumerate(segments, first):
        table[segment.code] = 1 << number
    for z, plane in enumerate(in_order):
        bits[z] |= table[plane]


def _dataset(
    source: SourceSeries,
    segments: Sequence[_Segment],
    masks: MaskStack,
    tracking: Mapping[str, str],
    options: SeriesOptions,
) -> Any:
    import highdicom as hd

    made_by = segments[0].algorithm
    dataset = hd.seg.Segmentation(
        source_images=list(source.images),
        pixel_array=masks,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(number, segment, tracking[segment.name]) for number, segment in enumerate(segments, 1)
        ],
        series_instance_uid=PLACEHOLDER_SERIES_UID,
        series_number=series_number(source, options.number, 1),
        sop_instance_uid=PLACEHOLDER_INSTANCE_UID,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=made_by.name,
        software_versions=(__version__, made_by.version) if made_by.version != __version__ else __version__,
        device_serial_number=made_by.version,
        content_label="LUNG_LOBES",
        content_description="Lung lobes and opacities, automatic, research use only",
        series_description=options.description or "m2unet lung lobes (research use only)",
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        specific_character_set="ISO_IR 192",
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=source.pixel_spacing_mm,
            slice_thickness=source.slice_thickness_mm,
            spacing_between_slices=source.slice_spacing_mm,
        ),
    )
    return dataset


def _description(number: int, segment: _Segment, tracking_uid: str) -> Any:
    import highdicom as hd

    made_by = segment.algorithm
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=_said(segment.name).capitalize(),
        segmented_property_category=segment.category.coded(),
        segmented_property_type=segment.concept.coded(),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=made_by.name,
            family=made_by.family.coded(),
            version=made_by.version,
            parameters=dict(item.partition("=")[::2] for item in made_by.parameters) or None,
        ),
        tracking_uid=tracking_uid,
        tracking_id=tracking_name(segment.name),
        anatomic_regions=None if segment.anatomy is None else [segment.anatomy.coded()],
        display_color=hd.color.CIELabColor.from_rgb(*segment.colour),
    )


def tracking_name(name: str) -> str:
    """Tracking identifier of a lobe, an opacity or a group of measurements, the same in every object."""
    return f"{MANUFACTURER} {_said(name)}"


def _said(name: str) -> str:
    return LOBE_BY_ABBREVIATION[name].name if name in LOBE_BY_ABBREVIATION else name.replace("_", " ").replace("-", " ")
