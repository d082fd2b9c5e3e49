"""What a case says of severity: the figures, the answer, and where they come from."""

from __future__ import annotations

from pathlib import Path

from m2unet.anatomy import LOBE_BY_CODE
from m2unet.ct.write import write_mask
from m2unet.inference.explain import Explanation, TopPatch
from m2unet.inference.predictor import Prediction
from m2unet.models.methods import is_network
from m2unet.report.evidence import FramedPatch, save_evidence
from m2unet.report.montage import Scene
from m2unet.report.result import (
    NOT_CALIBRATED,
    PHANTOM_WARNING,
    SYNTHETIC_WARNING,
    ExplanationPart,
    ReliabilityBinPart,
    SeverityPart,
    TopPatchPart,
)

EVIDENCE_FILE = "evidence.png"
SYNTHETIC_PRESET = "synthetic"
SYNTHETIC_REASON = (
    "the model that ships with m2unet was trained on synthetic images alone and gives lobes; a probability of severity "
    "needs a model trained on patients (m2unet train, then --model)"
)


def absence_reason(prediction: Prediction) -> str:
    """Why a prediction has no severity."""
    if prediction.model.preset == SYNTHETIC_PRESET:
        return SYNTHETIC_REASON
    return "the model does not classify severity"


def model_warnings(preset: str, trained_on: str | None) -> tuple[str, ...]:
    """What a reader of any figure has to know of the model.

    Args:
        preset: the one the model was trained with.
        trained_on: what its card says.
    """
    if preset == SYNTHETIC_PRESET:
        return (SYNTHETIC_WARNING,)
    return (PHANTOM_WARNING,) if "phantom" in (trained_on or "").lower() else ()


def severity_part(prediction: Prediction, heat: str | None) -> SeverityPart:
    """The severity of a prediction as ``result.json`` holds it.

    Args:
        prediction: of one scan.
        heat: name of the heat map's file, if one was written.
    """
    estimate, judged = prediction.severity, prediction.judgement
    if estimate is None:
        return SeverityPart(probability=None, spread=None, reason=absence_reason(prediction))
    explanation = None if prediction.explanation is None else _explanation_part(prediction, heat)
    if judged is None or prediction.confidence is None:
        return SeverityPart(
            probability=estimate.probability,
            spread=estimate.spread,
            low=min(estimate.bags, default=None),
            high=max(estimate.bags, default=None),
            bags=estimate.bags,
            seed=estimate.seed,
            raw=estimate.probability,
            explanation=explanation,
        )
    known = prediction.confidence
    calibrated = known.calibrator.kind != "none"
    return SeverityPart(
        probability=judged.probability,
        spread=judged.spread,
        low=min(judged.bags, default=None),
        high=max(judged.bags, default=None),
        bags=judged.bags,
        drawn=None if is_network(prediction.model.name) else _drawn(len(judged.bags)),
        seed=estimate.seed,
        calibrated=calibrated,
        calibration=known.calibrator.said if calibrated else NOT_CALIBRATED,
        raw=estimate.probability,
        interval=None if judged.low is None or judged.high is None else (judged.low, judged.high),
        threshold=judged.threshold,
        threshold_rule=known.operating_point.rule,
        answer=judged.said,
        abstained=judged.abstain,
        reasons=judged.reasons,
        distance=judged.distance,
        distance_limit=judged.limit,
        distance_reason=None if judged.distance is not None else known.reference_reason,
        reliability=tuple(ReliabilityBinPart.model_validate(part) for part in known.validation.get("bins", ())),
        explanation=explanation,
    )


def _drawn(count: int) -> str:
    """What a handcrafted method has in place of bags."""
    return f"{count} parts of the forest" if count > 1 else "one score"


def write_heat(prediction: Prediction, folder: Path, ending: str) -> dict[str, str]:
    """Write the heat map in the scan's own geometry; nothing without an explanation."""
    if prediction.explanation is None:
        return {}
    name = "heat" + ending
    write_mask(prediction.volume, prediction.explanation.heat, folder / name)
    return {"heat": name}


def write_evidence(prediction: Prediction, scene: Scene, folder: Path) -> dict[str, str]:
    """Draw the strongest patches; nothing where none spoke for severe."""
    found = prediction.explanation
    if found is None or not found.patches:
        return {}
    depth = len(scene.array)
    framed = [
        FramedPatch(patch.z, patch.box, f"{number}. slice {patch.slice_number} of {depth}, {patch.contribution:+.2f}")
        for number, patch in enumerate(found.patches, 1)
    ]
    save_evidence(folder / EVIDENCE_FILE, scene, framed)
    return {"evidence": EVIDENCE_FILE}


def _explanation_part(prediction: Prediction, heat: str | None) -> ExplanationPart:
    found: Explanation | None = prediction.explanation
    assert found is not None
    return ExplanationPart(
        heat=heat,
        peak_log_odds=found.peak,
        log_odds=found.log_odds,
        base_log_odds=found.base,
        looked_at=found.looked_at,
        patches=tuple(
            TopPatchPart(
                slice_number=patch.slice_number,
                box=patch.box,
                peak=patch.peak,
                log_odds=patch.contribution,
                share=patch.share,
                lobe=_lobe_at(prediction, patch),
            )
            for patch in found.patches
        ),
    )


def _lobe_at(prediction: Prediction, patch: TopPatch) -> str | None:
    """The lobe at the strongest position; None outside the lobes."""
    if prediction.lobes is None:
        return None
    lobe = LOBE_BY_CODE.get(int(prediction.lobes[patch.z, patch.peak[0], patch.peak[1]]))
    return None if lobe is None else lobe.abbreviation
