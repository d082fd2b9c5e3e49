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
from m2unet.evaluation.classification import check_scores, choose_threshold, classification_metrics, group_patients
from m2unet.evaluation.intervals import Interval, auc_interval
from m2unet.evaluation.recalibration import fit_isotonic, fit_logistic
from m2unet.inference.confidence import INTERVAL_LEVEL, Calibrator, Confidence, OperatingPoint
from m2unet.inference.network import Network
from m2unet.inference.outlier import LEAST_SCANS, Reference, fit_reference
from m2unet.inference.severity import SeverityEstimate, estimate_severity

logger = logging.getLogger(__name__)

RELIABILITY_BINS = 5
"""Validation sets are small: ten bins would hold a scan or two each."""

RESAMPLES = 1000
"""Of validation patients, for the interval of the threshold."""

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


def fit_scores(known: JudgedScans, config: ConfidenceConfig, rule: str | None = None) -> Confidence:
    """Calibration and operating point of a method that gives scores, without a reference.

    Args:
        known: validation scans; the probability is the method's score from 0 to 1.
        config: of the run.
        rule: what a method that comes with a rule of its own calls severe, in words; its score is then one half there,
            and the rule is the operating point.
    """
    if rule is not None and config.calibration == "isotonic":  # its level parts would blur where the rule lies
        config = config.model_copy(update={"calibration": "logistic"})
    calibrator = fit_calibrator(known, config)
    point = choose_operating_point(known, calibrator, config) if rule is None else _rule_point(known, calibrator, rule)
    return Confidence(calibrator=calibrator, operating_point=point, validation=reliability(known, calibrator))


def _rule_point(known: JudgedScans, calibrator: Calibrator, rule: str) -> OperatingPoint:
    threshold = calibrator(0.5)
    if not known.severity:
        return OperatingPoint(threshold, rule, reason=known.missing)
    calibrated = [calibrator(probability) for probability in known.probability]
    found = classification_metrics(known.severity, calibrated, threshold)
    return OperatingPoint(threshold, rule, found.recall, found.specificity, len(known.severity), None)


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
    """The threshold on calibrated probabilities that is best by the configured rule.

    It gives answers only where the validation scans show that the scores separate the classes: their AUC, with its 95 %
    interval over patients, lies above one half.
    """
    if not known.both:
        return OperatingPoint(reason=known.missing, informative=False)
    calibrated = [calibrator(probability) for probability in known.probability]
    area = _validation_area(known)
    threshold = choose_threshold(known.severity, calibrated, config.rule, target=config.target_sensitivity)
    if threshold is None or area.estimate is None or area.estimate <= 0.5:
        reason = f"the scores of {len(known.severity)} validation scans do not separate severe from non-severe"
        return OperatingPoint(reason=f"{reason} (AUC {area.cell(2)})", informative=False)
    doubt = None
    if area.low is None or area.low <= 0.5:
        doubt = f"too few validation scans to show that the scores separate the classes (AUC {area.cell(2)})"
    found = classification_metrics(known.severity, calibrated, threshold)
    rule = f"sensitivity of at least {config.target_sensitivity:g}" if config.rule == "sensitivity" else config.rule
    low, high = _threshold_interval(known, calibrated, config)
    figures = (found.recall, found.specificity, len(known.severity))
    return OperatingPoint(threshold, rule, *figures, doubt, low, high, informative=doubt is None)


def _validation_area(known: JudgedScans) -> Interval:
    """AUC of the validation scans with its interval over patients."""
    truth, score = check_scores(known.severity, known.probability)
    return auc_interval(truth, score, group_patients(known.patients, truth.size)[0])


def _threshold_interval(
    known: JudgedScans, calibrated: Sequence[float], config: ConfidenceConfig
) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of the threshold: percentile bootstrap over patients, with all their scans.

    Resamples of one class are left out; from half of them on there is no interval.
    """
    rng = np.random.default_rng(_STREAM)
    severity, scores = np.asarray(known.severity), np.asarray(calibrated)
    members = [np.flatnonzero(np.asarray(known.patients) == name) for name in dict.fromkeys(known.patients)]
    chosen = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        found = choose_threshold(severity[rows], scores[rows], config.rule, target=config.target_sensitivity)
        if found is not None:
            chosen.append(found)
    if len(chosen) <= RESAMPLES / 2:
        return None, None
    low, high = np.quantile(chosen, [0.5 - INTERVAL_LEVEL / 2, 0.5 + INTERVAL_LEVEL / 2])
    return float(low), float(high)


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
    seen = [(_patient(scan), estimate.signature) for scan, estimate in zip(scans, estimates, strict=True)]
    return reference_of(seen, [estimate.signature for estimate in held_out], config.confidence)


def reference_of(
    seen: Sequence[tuple[str, Sequence[float]]], held_out: Sequence[Sequence[float]], config: ConfidenceConfig
) -> tuple[Reference | None, str | None]:
    """What is usual, or why it cannot be said.

    Args:
        seen: patient and signature of training scans; an empty signature is left out.
        held_out: signatures of validation scans.
        config: for the rate of false alarms.
    """
    known = [(patient, vector) for patient, vector in seen if vector]
    if seen and not known:
        return None, "the method has nothing to compare scans by"
    if len(known) < LEAST_SCANS:
        return None, f"{len(known)} training scans; {LEAST_SCANS} are needed to say what is usual"
    found = fit_reference(
        [vector for _, vector in known],
        [patient for patient, _ in known],
        [vector for vector in held_out if vector],
        quantile=config.usual_quantile,
    )
    return found, None if found is not None else "all training scans are of one patient"
