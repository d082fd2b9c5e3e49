"""Everything that is written for one predicted scan."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import CODES_BY_NAME
from m2unet.ct.identity import ScanIdentity
from m2unet.ct.write import write_mask
from m2unet.files import sweep, write_text
from m2unet.inference.plausibility import check_prediction
from m2unet.inference.postprocess import PostprocessConfig, PostprocessStep, postprocess_lobes
from m2unet.inference.predictor import Prediction
from m2unet.quantify.opacity import OpacityConfig
from m2unet.quantify.quantities import Quantities, quantify
from m2unet.report.contours import OPACITIES
from m2unet.report.html import render_report
from m2unet.report.identity import read_identity
from m2unet.report.montage import Scene, save_montage, save_thumbnail
from m2unet.report.result import (
    FindingPart,
    LobesPart,
    ModelPart,
    QuantityPart,
    RegionPart,
    ResultDocument,
    ScanPart,
    ScorePart,
    StepPart,
)
from m2unet.report.viewer import DATA_FILE, VIEWER_FILE, install_assets, make_view, write_viewer
from m2unet.workflows.case_folder import (
    ASSETS,
    ERROR_FILE,
    OWN_FILES,
    REPLACED_FILE,
    REPORT_FILE,
    RESULT_FILE,
    begin_replacing,
    owned_files,
    remove_files,
)
from m2unet.workflows.run_folder import versions
from m2unet.workflows.severity import model_warnings, severity_part, write_evidence, write_heat

MASK_FORMATS = {"nifti": ".nii.gz", "mha": ".mha", "nrrd": ".nrrd", "dicom": ".nii.gz", "memory": ".nii.gz"}


@dataclass(frozen=True)
class CaseEvidence:
    """What is known of one scan when its files are written.

    Attributes:
        name: of the case, without identifiers.
        prediction: with the lobes as they are written: post-processed.
        steps: what post-processing changed.
        quantities: measured in the lobes; None without lobes.
    """

    name: str
    prediction: Prediction
    steps: tuple[PostprocessStep, ...] = ()
    quantities: Quantities | None = None

    @property
    def opacity(self) -> NDArray[np.uint8] | None:
        """``[z, y, x]`` 0 none, 1 ground glass, 2 consolidation, on the volume's grid."""
        return None if self.quantities is None else self.quantities.opacity_mask

    @property
    def scene(self) -> Scene:
        """What pictures are drawn from."""
        volume = self.prediction.volume
        explanation = self.prediction.explanation
        heat = None if explanation is None else explanation.heat
        return Scene(volume.array, self.prediction.lobes, self.opacity, volume.spacing_mm, heat)


Exporter = Callable[[CaseEvidence, Path], dict[str, str]]
"""Writes further files into a case's folder and names them: what each is, and its file name."""


@dataclass(frozen=True)
class CaseOptions:
    """What is written for a case, and how it is predicted.

    Attributes:
        mask_format: ending of the masks (``.nii.gz``, ``.mha``, ``.nrrd``); None for the input's own format, NIfTI
            for DICOM.
        montage: whether to draw the montage and a thumbnail.
        seed: seed of the random bags.
        overwrite: predict finished cases again.
        report: whether to write ``report.html`` and the interactive view.
        identify: whether the report shows the patient's name, ID, birth date and study date.
        postprocess: steps that tidy the lobes.
        opacity: cuts and scales of the opacity rule.
        exporters: called in turn; what they name enters ``files`` of the document.
        explain: whether to say where the severity comes from: a heat map and the strongest patches.
        accept: codes of errors to live with as warnings, of :data:`m2unet.ct.findings.ACCEPTABLE`.
    """

    mask_format: str | None = None
    montage: bool = True
    seed: int = 0
    overwrite: bool = False
    report: bool = True
    identify: bool = False
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    opacity: OpacityConfig = field(default_factory=OpacityConfig)
    exporters: tuple[Exporter, ...] = ()
    explain: bool = True
    accept: tuple[str, ...] = ()

    def settings(self) -> dict[str, object]:
        """Those that the figures depend on, JSON-ready."""
        kept = {
            "seed": self.seed,
            "postprocess": asdict(self.postprocess),
            "opacity": self.opacity.model_dump(mode="json"),
        }
        return {**kept, "accept": sorted(self.accept)} if self.accept else kept

    def satisfied_by(self, kept: ResultDocument) -> bool:
        """Whether a case written before was made with these settings and has the files that are asked for."""
        wanted = {"montage"} if self.montage else set()
        wanted |= {"report", "viewer"} if self.report else set()
        shows_who = self.report and self.identify
        there = wanted <= kept.files.keys() and set(self.exporter_names()) <= set(kept.exporters)
        told = kept.explained or not self.explain
        return kept.settings == self.settings() and there and told and kept.identified == shows_who

    def exporter_names(self) -> tuple[str, ...]:
        """Names of the exporters, in order."""
        return tuple(getattr(exporter, "__name__", repr(exporter)) for exporter in self.exporters)


def write_case(
    prediction: Prediction,
    name: str,
    folder: Path,
    options: CaseOptions | None = None,
    *,
    fingerprint: str = "",
    identity: ScanIdentity | None = None,
    leftovers: bool = False,
) -> ResultDocument:
    """Tidy the lobes, measure, and write everything of one prediction to ``folder``, ``result.json`` last.

    Args:
        prediction: of one scan; its lobes are tidied in place.
        name: of the case, without identifiers.
        folder: made if need be; what cases share goes to ``assets`` beside it.
        options: what to write.
        fingerprint: of the scan's files, where there is no identity.
        identity: which scan it is of.
        leftovers: the folder may hold files of a process that was killed while it wrote there.
    """
    options = options or CaseOptions()
    started = time.perf_counter()
    evidence = gather_evidence(prediction, name, options)
    measured = time.perf_counter()
    earlier = owned_files(folder) | (OWN_FILES if leftovers else frozenset())
    begin_replacing(folder)
    files = _write_masks(evidence, folder, options)
    if options.montage:
        files |= _write_pictures(evidence, folder)
        files |= write_evidence(evidence.prediction, evidence.scene, folder)
    for exporter in options.exporters:
        files |= exporter(evidence, folder)
    document = result_document(evidence, files, options, identity or fingerprint)
    if options.report:
        document = _write_report(document, evidence, folder, options)
    remove_files(folder, earlier - set(document.files.values()))
    sweep(folder)
    spent = {"measure": round(measured - started, 3), "write": round(time.perf_counter() - measured, 3)}
    document = document.model_copy(update={"seconds": {**document.seconds, **spent}})
    (folder / ERROR_FILE).unlink(missing_ok=True)
    write_text(folder / RESULT_FILE, document.model_dump_json(indent=2) + "\n")
    (folder / REPLACED_FILE).unlink(missing_ok=True)
    return document


def gather_evidence(prediction: Prediction, name: str, options: CaseOptions) -> CaseEvidence:
    """Tidy the lobes of a prediction, in place to save memory, check them, and measure them.

    Raises:
        QualityError: no lobe at all, and that is not accepted.
    """
    if prediction.lobes is None:
        return CaseEvidence(name, prediction)
    volume = prediction.volume
    tidied = postprocess_lobes(prediction.lobes, volume.voxel_ml, options.postprocess, out=prediction.lobes)
    volume = replace(volume, findings=volume.findings + check_prediction(tidied.mask, volume, options.accept))
    quantities = quantify(volume.array, tidied.mask, volume.spacing_mm, options.opacity, voxel_ml=volume.voxel_ml)
    return CaseEvidence(name, replace(prediction, volume=volume, lobes=tidied.mask), tidied.steps, quantities)


def _write_masks(evidence: CaseEvidence, folder: Path, options: CaseOptions) -> dict[str, str]:
    volume, files = evidence.prediction.volume, {}
    ending = options.mask_format or MASK_FORMATS[volume.source.format]
    for what, mask in (("lobes", evidence.prediction.lobes), ("opacity", evidence.opacity)):
        if mask is not None:
            files[what] = what + ending
            write_mask(volume, mask, folder / files[what])
    return files | write_heat(evidence.prediction, folder, ending)


def _write_pictures(evidence: CaseEvidence, folder: Path) -> dict[str, str]:
    files = {"montage": "montage.png", "thumbnail": "thumbnail.png"}
    said = evidence.prediction.judgement or evidence.prediction.severity  # calibrated where the model can
    title = evidence.name if said is None else f"{evidence.name}: severe {said.probability:.2f}"
    save_montage(folder / files["montage"], evidence.scene, title=title)
    save_thumbnail(folder / files["thumbnail"], evidence.scene)
    return files


def _write_report(
    document: ResultDocument, evidence: CaseEvidence, folder: Path, options: CaseOptions
) -> ResultDocument:
    written = {"report": REPORT_FILE, "viewer": VIEWER_FILE, "viewer_data": DATA_FILE}
    document = document.model_copy(update={"files": {**document.files, **written}, "identified": options.identify})
    install_assets(folder.parent / ASSETS)
    write_viewer(folder, document, make_view(evidence.prediction.volume, evidence.scene))
    pictures = {name: document.files.get(name) for name in ("montage", "evidence")}
    shown = {name: (folder / file).read_bytes() for name, file in pictures.items() if file}
    identity = read_identity(evidence.prediction.volume) if options.identify else None
    page = render_report(document, shown.get("montage"), identity, evidence=shown.get("evidence"))
    write_text(folder / REPORT_FILE, page)
    return document


def result_document(
    evidence: CaseEvidence, files: dict[str, str], options: CaseOptions, identity: ScanIdentity | str = ""
) -> ResultDocument:
    """The result of one scan as the document that ``result.json`` holds; without an identity, a fingerprint serves."""
    known = identity if isinstance(identity, ScanIdentity) else None
    prediction = evidence.prediction
    volume = prediction.volume
    model = ModelPart.model_validate(vars(prediction.model))
    return ResultDocument(
        warnings=model_warnings(model.preset, model.trained_on),
        case=evidence.name,
        source_fingerprint=identity.fingerprint if isinstance(identity, ScanIdentity) else identity,
        scan=ScanPart(
            format=volume.source.format,
            shape=volume.shape,
            spacing_mm=volume.spacing_mm,
            digest=None if known is None else known.digest,
            images=None if known is None else known.images,
        ),
        findings=tuple(FindingPart.model_validate(finding.to_dict()) for finding in volume.findings),
        severity=severity_part(prediction, files.get("heat")),
        lobes=_lobes_part(evidence, files),
        montage=files.get("montage"),
        files=files,
        exporters=options.exporter_names(),
        explained=options.explain,
        model=model,
        settings=options.settings(),
        versions=versions(),
        seconds={stage: round(seconds, 3) for stage, seconds in prediction.seconds.items()},
    )


def _lobes_part(evidence: CaseEvidence, files: dict[str, str]) -> LobesPart:
    codes = dict(CODES_BY_NAME)
    found = evidence.quantities
    if found is None:
        return LobesPart(mask=None, codes=codes, reason="the model does not segment lobes")
    return LobesPart(
        mask=files.get("lobes"),
        codes=codes,
        volumes=tuple(_quantity_part(found, name) for name in found.volumes),
        regions=tuple(RegionPart(region=name, **asdict(region)) for name, region in found.regions.items()),
        scores=tuple(
            ScorePart.model_validate({name: value for name, value in score.to_dict().items() if name != "parts"})
            for score in (found.severity_score, found.lobar_score)
        ),
        airway_ml=found.airway_ml,
        airway_reason=found.airway_reason,
        postprocessing=tuple(StepPart.model_validate(asdict(step)) for step in evidence.steps),
        opacity_mask=files.get("opacity"),
        opacity_codes={name: code for code, name, _ in OPACITIES},
    )


def _quantity_part(found: Quantities, name: str) -> QuantityPart:
    volume, opacity = found.volumes[name].to_dict(), found.opacity[name].to_dict()
    reasons = dict.fromkeys(reason for reason in (volume.pop("reason"), opacity.pop("reason")) if reason)
    return QuantityPart(
        region=name,
        lobar_score=found.lobar_score.parts.get(name),
        reason="; ".join(reasons) or None,
        **volume,
        **opacity,
    )
