"""What belongs to a scan that came as DICOM: a segmentation and a structured report in its study."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from m2unet import __version__
from m2unet.anatomy import LOBE_CODES
from m2unet.errors import MissingExtraError
from m2unet.export.codes import NEIGHBOURHOOD_ANALYSIS
from m2unet.export.dicom_seg import SegReference, write_segmentation
from m2unet.export.dicom_sr import write_report
from m2unet.export.source import Algorithm, ExportError, SeriesOptions, SourceSeries, read_source, require_highdicom
from m2unet.export.sr_content import PartMeasurements, ReportContent, ScoreMeasurement, SeverityMeasurement
from m2unet.inference.confidence import Judgement
from m2unet.inference.predictor import ModelIdentity, Prediction
from m2unet.inference.severity import SeverityEstimate
from m2unet.quantify.lobes import GROUPS
from m2unet.quantify.quantities import Quantities
from m2unet.quantify.scores import Score
from m2unet.workflows.case import CaseEvidence
from m2unet.workflows.case_folder import SEG_FILE, SR_FILE

logger = logging.getLogger(__name__)

REPORT_FILE = SR_FILE


def write_dicom(
    prediction: Prediction, quantities: Quantities | None, folder: Path, *, series: SeriesOptions | None = None
) -> dict[str, str]:
    """Write ``lobes.seg.dcm`` and ``report.sr.dcm`` for a scan that was read from DICOM.

    A part that there is nothing for is not written: no segmentation without lobes, no report without figures. Files of
    an earlier call that are not written now are removed.

    Args:
        prediction: of one scan, with the lobes as they are to be shown.
        quantities: measured in those lobes; None for severity alone.
        folder: made if need be.
        series: number, description and date of the new series, the same for both.

    Returns:
        By what it is (``dicom_seg``, ``dicom_sr``), the name of each file written; empty for a scan that was not read
        from DICOM.

    Raises:
        ExportError: the source series lacks what identifies it, or its files are gone.
        MissingExtraError: highdicom is not installed.
    """
    if prediction.volume.source.format != "dicom":
        return {}
    for name in (SEG_FILE, REPORT_FILE):
        (folder / name).unlink(missing_ok=True)
    written: dict[str, str] = {}
    require_highdicom()
    source = read_source(prediction.volume)
    seg = _segmentation(prediction, quantities, folder, series, source)
    if seg is not None:
        written["dicom_seg"] = SEG_FILE
    content = report_content(prediction, quantities)
    if content.parts or content.scores or content.severity:
        write_report(prediction.volume, content, folder / REPORT_FILE, seg=seg, series=series, source=source)
        written["dicom_sr"] = REPORT_FILE
    return written


def export_dicom(evidence: CaseEvidence, folder: Path) -> dict[str, str]:
    """An exporter of :class:`~m2unet.workflows.case.CaseOptions`: :func:`write_dicom` that never fails a case.

    What hinders it (no highdicom, source files gone) is logged, and nothing is written.
    """
    try:
        return write_dicom(evidence.prediction, evidence.quantities, folder)
    except (ExportError, MissingExtraError) as error:
        logger.warning("%s: no DICOM objects are written: %s", evidence.name, error)
        return {}


def _segmentation(
    prediction: Prediction,
    quantities: Quantities | None,
    folder: Path,
    series: SeriesOptions | None,
    source: SourceSeries,
) -> SegReference | None:
    lobes = prediction.lobes
    opacity = None if quantities is None else quantities.opacity_mask
    held = lobes is not None and any(np.isin(plane, LOBE_CODES).any() for plane in lobes)
    if lobes is None or not (held or (opacity is not None and opacity.any())):
        return None
    return write_segmentation(
        prediction.volume,
        lobes,
        folder / SEG_FILE,
        opacity=opacity,
        algorithm=model_algorithm(prediction.model),
        opacity_algorithm=opacity_algorithm(quantities),
        series=series,
        source=source,
    )


def report_content(prediction: Prediction, quantities: Quantities | None) -> ReportContent:
    """What the report says of a prediction and of what was measured in it."""
    return ReportContent(
        parts=() if quantities is None else tuple(_parts(quantities)),
        scores=() if quantities is None else tuple(map(_score, (quantities.severity_score, quantities.lobar_score))),
        severity=None if prediction.severity is None else _severity(prediction.severity, prediction.judgement),
        comments=tuple(
            f"{finding.level}: {finding.found}" for finding in prediction.volume.findings if finding.level != "note"
        ),
        model=model_algorithm(prediction.model),
        measured_by=opacity_algorithm(quantities),
    )


def model_algorithm(model: ModelIdentity) -> Algorithm:
    """The network as an algorithm: its version is the package's with the beginning of the weights' hash."""
    parameters = (f"preset={model.preset}", f"weights_sha256={model.weights_sha256}")
    return Algorithm(model.name, f"{__version__}+{model.weights_sha256[:12]}", parameters=parameters)


def opacity_algorithm(quantities: Quantities | None) -> Algorithm:
    """The opacity rule as an algorithm, with its cuts."""
    cuts = {} if quantities is None else quantities.config.model_dump()
    parameters = tuple(f"{name}={value}" for name, value in cuts.items())
    return Algorithm("m2unet opacity rule", __version__, NEIGHBOURHOOD_ANALYSIS, parameters)


def _parts(quantities: Quantities) -> Iterator[PartMeasurements]:
    for name in GROUPS:
        volume, opacity = quantities.volumes[name], quantities.opacity[name]
        yield PartMeasurements(
            name=name,
            volume_ml=volume.volume_ml,
            opacity_percent=opacity.opacity_percent,
            mean_hu=opacity.mean_hu,
            partial=volume.partial,
            reason=volume.reason,
        )
    both = quantities.opacity["lungs"]
    yield PartMeasurements("ground_glass", both.ground_glass_ml, reason=_unless(both.ground_glass_ml, both.reason))
    yield PartMeasurements("consolidation", both.consolidation_ml, reason=_unless(both.consolidation_ml, both.reason))


def _unless(value: float | None, reason: str | None) -> str | None:
    return reason if value is None else None


def _score(score: Score) -> ScoreMeasurement:
    reason = score.reason
    if score.total is None:
        reason = f"{reason or 'not every part is scored'}; it lies between {score.least} and {score.most}"
    return ScoreMeasurement(score.name, score.total, reason)


def _severity(estimate: SeverityEstimate, judgement: Judgement | None) -> SeverityMeasurement:
    """Calibrated, and with its answer, where it was judged."""
    several = len(estimate.bags) > 1
    shown = estimate if judgement is None else judgement
    return SeverityMeasurement(
        probability=shown.probability,
        spread=shown.spread if several else None,
        bags=len(estimate.bags) or None,
        answer=None if judgement is None else "; ".join((judgement.said, *judgement.reasons)),
    )
