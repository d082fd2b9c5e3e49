"""Everything that is written for one predicted scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from m2unet.anatomy import LOBES
from m2unet.ct.write import write_mask
from m2unet.files import write_text
from m2unet.inference.predictor import Prediction
from m2unet.quantify.lobes import find_cuts, lobe_volumes
from m2unet.report.figures import save_montage
from m2unet.report.result import (
    FindingPart,
    LobesPart,
    ModelPart,
    QuantityPart,
    ResultDocument,
    ScanPart,
    SeverityPart,
)
from m2unet.workflows.run_folder import versions

RESULT_FILE = "result.json"
ERROR_FILE = "error.json"
MASK_FORMATS = {"nifti": ".nii.gz", "mha": ".mha", "nrrd": ".nrrd", "dicom": ".nii.gz", "memory": ".nii.gz"}


@dataclass(frozen=True)
class CaseOptions:
    """What is written for a case, and how it is predicted.

    Attributes:
        mask_format: ending of the lobe mask (``.nii.gz``, ``.mha``, ``.nrrd``); None for the input's own format,
            NIfTI for DICOM.
        montage: whether to draw the montage.
        seed: seed of the random bags.
        overwrite: predict finished cases again.
    """

    mask_format: str | None = None
    montage: bool = True
    seed: int = 0
    overwrite: bool = False


def write_case(
    prediction: Prediction, name: str, folder: Path, options: CaseOptions | None = None, *, fingerprint: str = ""
) -> ResultDocument:
    """Write everything of one prediction to ``folder``, ``result.json`` last.

    Args:
        prediction: of one scan.
        name: of the case, without identifiers.
        folder: made if need be.
        options: format of the mask, and whether to draw a montage.
        fingerprint: of the scan's files.
    """
    options = options or CaseOptions()
    mask_file = None
    if prediction.lobes is not None:
        mask_file = "lobes" + (options.mask_format or MASK_FORMATS[prediction.volume.source.format])
        write_mask(prediction.volume, prediction.lobes, folder / mask_file)
    if options.montage:
        title = name if prediction.severity is None else f"{name}: severe {prediction.severity.probability:.2f}"
        volume = prediction.volume
        save_montage(folder / "montage.png", volume.array, prediction.lobes, volume.spacing_mm, title=title)
    document = result_document(prediction, name, mask_file, fingerprint, "montage.png" if options.montage else None)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    write_text(folder / RESULT_FILE, document.model_dump_json(indent=2) + "\n")
    return document


def result_document(
    prediction: Prediction, name: str, mask_file: str | None, fingerprint: str, montage: str | None
) -> ResultDocument:
    """The result of one scan as the document that ``result.json`` holds."""
    volume, estimate = prediction.volume, prediction.severity
    if estimate is None:
        severity = SeverityPart(probability=None, spread=None, reason="the model does not classify severity")
    else:
        severity = SeverityPart(
            probability=estimate.probability, spread=estimate.spread, bags=estimate.bags, seed=estimate.seed
        )
    return ResultDocument(
        case=name,
        source_fingerprint=fingerprint,
        scan=ScanPart(format=volume.source.format, shape=volume.shape, spacing_mm=volume.spacing_mm),
        findings=tuple(FindingPart.model_validate(finding.to_dict()) for finding in volume.findings),
        severity=severity,
        lobes=_lobes_part(prediction, mask_file),
        montage=montage,
        model=ModelPart(**vars(prediction.model)),
        versions=versions(),
        seconds={stage: round(seconds, 3) for stage, seconds in prediction.seconds.items()},
    )


def _lobes_part(prediction: Prediction, mask_file: str | None) -> LobesPart:
    codes = {lobe.abbreviation: lobe.code for lobe in LOBES}
    if prediction.lobes is None:
        return LobesPart(mask=None, codes=codes, reason="the model does not segment lobes")
    volume = prediction.volume
    cuts = find_cuts(prediction.lobes, volume.spacing_mm, volume.array)
    volumes = lobe_volumes(prediction.lobes, volume.voxel_ml, cuts)
    parts = tuple(
        QuantityPart(region=region, volume_ml=q.volume_ml, partial=q.partial, reason=q.reason)
        for region, q in volumes.items()
    )
    return LobesPart(mask=mask_file, codes=codes, volumes=parts)
