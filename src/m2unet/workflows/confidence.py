"""Fit calibration, operating point and reference of a model that has just been trained, on its validation scans."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from m2unet.cohort.folds import Split
from m2unet.cohort.store import Store, StoredScan
from m2unet.config import ConfidenceConfig, Config
from m2unet.evaluation.calibration import calibration
from m2unet.evaluation.classification import choose_threshold, classification_metrics
from m2unet.evaluation.recalibration import fit_isotonic, fit_logistic
from m2unet.inference.confidence import Calibrator, Confidence, OperatingPoint
from m2unet.inference.network import Network
from m2unet.inference.outlier import LEAST_SCANS, Reference, fit_reference
from m2unet.inference.severity import SeverityEstimate, estimate_severity

logger = logging.getLogger(__name__)

RELIABILITY_BINS = 5
"""Validation sets are small: ten bins would hold a scan or two each."""

_STREAM = 0xCA11


@dataclass(frozen=True)
class JudgedScans:
    """Validation scans with a known severity, and what the network says of them.

    Attributes:
        severity: ``[n]``, 1 severe.
        probability: ``[n]``, as the network gives it.
        patients: ``[n]``.
    """

    severity: list[int]
    probability: list[float]
    patients: list[str]

    @property
    def both(self) -> bool:
        """Whether both classes occur."""
        return len(set(self.severity)) == 2

    @property
    def missing(self) -> str:
        """Why nothing can be fitted on them."""
        return "no validation scan has a severity" if not self.severity else "the validation scans are of one class"


def fit_confidence(
    model: Network, store: Store, split: Split, config: Config, device: torch.device
) -> Confidence | None:
    """Fit everything a judgement needs; None for a network without severity.

    Validation scans are estimated like scans to be predicted; training scans lend one bag each to the reference.

    Args:
        model: trained, in evaluation mode, on ``device``.
        store: holds the scans of ``split.train`` and ``split.validation``.
        split: which scans are which.
        config: of the run.
        device: where the model is.
    """
    if "severity" not in model.tasks:
        return None
    held = [store.open(scan_id) for scan_id in split.validation]
    estimates = [estimate_severity(model, scan, config, seed=config.seed, device=device) for scan in held]
    labelled = [(s, e) for s, e in zip(held, estimates, strict=True) if s.severity >= 0]
    known = JudgedScans(
        [scan.severity for scan, _ in labelled],
        [estimate.probability for _, estimate in labelled],
        [_patient(scan) for scan, _ in labelled],
    )
    calibrator = fit_calibrator(known, config.confidence)
    reference, reason = _reference(model, store, split, config, device, estimates)
    return Confidence(
        calibrator=calibrator,
        operating_point=choose_operating_point(known, calibrator, config.confidence),
        reference=reference,
        reference_reason=reason,
        validation=reliability(known, calibrator),
    )


def _patient(scan: StoredScan) -> str:
    return scan.scan_id if scan.row is None else scan.row.patient_id


def fit_calibrator(known: JudgedScans, config: ConfidenceConfig) -> Calibrator:
    """The map that the configuration names, or none with the reason."""
    plain = Calibrator(scans=len(known.severity), patients=len(set(known.patients)), reason=None)
    if config.calibration == "none":
        return replace(plain, reason="not asked for (confidence.calibration)")
    if not known.both:
        return replace(plain, reason=known.missing)
    if config.calibration == "isotonic":
        x, y = fit_isotonic(known.severity, known.probability)
        return replace(plain, kind="isotonic", x=x, y=y)
    slope, shift = fit_logistic(known.severity, known.probability, shift=config.calibration == "logistic")
    return replace(plain, kind=config.calibration, slope=slope, shift=shift)


def choose_operating_point(known: JudgedScans, calibrator: Calibrator, config: ConfidenceConfig) -> OperatingPoint:
    """The threshold on calibrated probabilities that is best by the configured rule."""
    if not known.both:
        return OperatingPoint(reason=known.missing)
    calibrated = [calibrator(probability) for probability in known.probability]
    threshold = choose_threshold(known.severity, calibrated, config.rule, target=config.target_sensitivity)
    assert threshold is not None
    found = classification_metrics(known.severity, calibrated, threshold)
    rule = f"sensitivity of at least {config.target_sensitivity:g}" if config.rule == "sensitivity" else config.rule
    return OperatingPoint(threshold, rule, found.recall, found.specificity, len(known.severity), None)


def reliability(known: JudgedScans, calibrator: Calibrator) -> dict[str, Any]:
    """Brier score, calibration error and the reliability diagram of the validation scans, raw and calibrated.

    The calibrated figures are of the scans the map was fitted on, and flatter it.
    """
    if not known.severity:
        return {}
    raw = calibration(known.severity, known.probability, RELIABILITY_BINS)
    after = calibration(known.severity, [calibrator(p) for p in known.probability], RELIABILITY_BINS)
    return {
        "scans": len(known.severity),
        "patients": len(set(known.patients)),
        "severe": int(np.sum(known.severity)),
        "brier_raw": raw.brier,
        "brier": after.brier,
        "ece_raw": raw.ece,
        "ece": after.ece,
        "bins": after.to_dict()["bins"],
    }


def _reference(
    model: Network,
    store: Store,
    split: Split,
    config: Config,
    device: torch.device,
    held_out: Sequence[SeverityEstimate],
) -> tuple[Reference | None, str | None]:
    wanted = config.confidence.reference_scans
    chosen = np.random.default_rng([config.seed, _STREAM]).permutation(len(split.train))[:wanted]
    if len(chosen) < LEAST_SCANS:
        return None, f"{len(chosen)} training scans; {LEAST_SCANS} are needed to say what is usual"
    scans = [store.open(split.train[index]) for index in sorted(chosen.tolist())]
    estimates = [estimate_severity(model, scan, config, seed=config.seed, device=device, bags=1) for scan in scans]
    if not all(estimate.embedding for estimate in (*estimates, *held_out)):
        return None, "the network has no embedding"
    found = fit_reference(
        [estimate.embedding for estimate in estimates],
        [_patient(scan) for scan in scans],
        [estimate.embedding for estimate in held_out],
        quantile=config.confidence.usual_quantile,
    )
    return found, None if found is not None else "all training scans are of one patient"
