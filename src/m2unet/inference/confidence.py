"""What to make of a severity estimate: the calibrated probability, the decision, and when to leave it to a human.

Everything here was fitted on validation scans when the model was trained and is stored with it: the entry
``confidence`` of ``model.json``, and ``reference.safetensors`` with vectors of training scans, by which unusual scans
are told.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from m2unet.ct.findings import Finding
from m2unet.errors import ModelError
from m2unet.files import atomic_path
from m2unet.inference.outlier import Reference
from m2unet.inference.severity import SeverityEstimate

logger = logging.getLogger(__name__)

REFERENCE_FILE = "reference.safetensors"
UNCERTAIN = "uncertain, read by a human"
DEFAULT_THRESHOLD = 0.5
INTERVAL_LEVEL = 0.95
OWN_RULE = "the method's own rule"
"""How the rule of an operating point begins that was not chosen on validation scans."""

NO_THRESHOLD = "there is no threshold to decide by"
"""How the reason begins for which a model leaves every answer to a human."""

_EDGE = 1e-6

_TENSORS = {1: "embeddings", 2: "vectors"}
"""Name of the tensor in the reference's file, by version."""

MapKind = Literal["none", "temperature", "logistic", "isotonic"]

LIMITING_FINDINGS = frozenset(
    {
        "body-absent",
        "chest-uncertain",
        "derived",
        "implausible-hu",
        "lungs-absent",
        "lungs-cut-off",
        "mixed-spacing",
        "no-rescale",
        "non-axial",
        "not-hu",
        "orientation-doubtful",
        "orientation-unknown",
        "slices-left-out",
        "too-few-slices",
        "unusual-spacing",
        "windowed",
    }
)
"""Warnings about a scan after which its severity is not relied on."""


@dataclass(frozen=True)
class Calibrator:
    """A rising map from the network's probability to a calibrated one.

    Attributes:
        kind: ``none`` changes nothing.
        slope, shift: of the log-odds, for ``temperature`` (shift 0) and ``logistic``.
        x, y: points of the ``isotonic`` map, linear between them.
        scans, patients: it was fitted on so many validation scans of so many patients.
        reason: why it is ``none``.
    """

    kind: MapKind = "none"
    slope: float = 1.0
    shift: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    scans: int = 0
    patients: int = 0
    reason: str | None = "the model's card holds no calibration"

    def __call__(self, probability: float) -> float:
        """The calibrated probability."""
        if self.kind == "none":
            return probability
        if self.kind == "isotonic":
            return float(np.interp(probability, self.x, self.y))
        return float(_expit(self.slope * _logit(probability) + self.shift))

    @property
    def said(self) -> str:
        """In words, for a report."""
        if self.kind == "none":
            return "The probability is not calibrated: read it as a score from 0 to 1, not as a risk."
        return f"Calibrated ({self.kind}) on {self.scans} validation scans of {self.patients} patients."


@dataclass(frozen=True)
class OperatingPoint:
    """From which calibrated probability on a scan is called severe, and how that was chosen.

    Attributes:
        threshold: called severe from here on.
        rule: how it was chosen, on validation scans.
        sensitivity, specificity: on those scans.
        scans: how many; 0 when nothing could be chosen and the threshold is :data:`DEFAULT_THRESHOLD`.
        reason: why then.
        low, high: 95 % interval of the threshold, from resampled validation patients: few scans leave it open where it
            lies. None where it was not chosen on them.
        informative: False where the validation scans do not show that the scores tell the classes apart: then no answer
            is given, for ``reason``.
    """

    threshold: float = DEFAULT_THRESHOLD
    rule: str = "fixed"
    sensitivity: float | None = None
    specificity: float | None = None
    scans: int = 0
    reason: str | None = "the model's card holds no operating point"
    low: float | None = None
    high: float | None = None
    informative: bool = True

    @classmethod
    def from_card(cls, entry: Mapping[str, Any]) -> OperatingPoint:
        """A stored point. A threshold that calls every scan alike, as earlier versions could store, is not used.

        Raises:
            TypeError: an entry of another form.
        """
        point = cls(**entry)
        if 0 < point.threshold < 1 or point.rule.startswith(OWN_RULE):
            return point
        return cls(reason=f"the stored threshold, {point.threshold:.3g}, calls every scan alike", informative=False)

    def straddled(self, low: float, high: float) -> str | None:
        """Why an interval of a probability leaves the answer open, in words; None if it does not.

        It does where it meets the threshold, or the interval of the threshold.
        """
        ends = (self.threshold, self.threshold)
        if self.low is not None and self.high is not None:  # resampling can miss the threshold itself
            ends = (min(self.low, self.threshold), max(self.high, self.threshold))
        if low >= ends[1] or high < ends[0]:
            return None
        said = f"the interval {low:.2f} to {high:.2f} straddles the threshold {self.threshold:.2f}"
        return said if ends[0] == ends[1] else f"{said}, itself known only to lie from {ends[0]:.2f} to {ends[1]:.2f}"


@dataclass(frozen=True)
class Judgement:
    """An estimate, judged.

    Attributes:
        probability: calibrated; of the mean of the network's probabilities over the bags.
        bags: each bag's, calibrated.
        low, high: 95 % interval of the probability over endlessly many bags, see :func:`mean_interval`; it always holds
            the probability. None of one bag.
        threshold: the operating point.
        severe: whether the probability reaches it.
        abstain: whether the answer is left to a human.
        reasons: why; empty if not.
        distance, limit: of the scan to the training scans, and the largest that passes; None where unknown.
    """

    probability: float
    bags: tuple[float, ...]
    low: float | None
    high: float | None
    threshold: float
    severe: bool
    abstain: bool
    reasons: tuple[str, ...] = ()
    distance: float | None = None
    limit: float | None = None

    @property
    def said(self) -> str:
        """The answer in words."""
        return UNCERTAIN if self.abstain else "severe" if self.severe else "non-severe"

    @property
    def spread(self) -> float:
        """Standard deviation over the calibrated bags."""
        return float(np.std(self.bags))


@dataclass(frozen=True)
class Confidence:
    """Calibration, operating point and reference of one model.

    Attributes:
        calibrator, operating_point: see there.
        reference: None where the model has none.
        reference_reason: why.
        validation: figures of the validation scans: ``brier_raw``, ``brier``, ``ece_raw``, ``ece`` and ``bins``.
    """

    calibrator: Calibrator = field(default_factory=Calibrator)
    operating_point: OperatingPoint = field(default_factory=OperatingPoint)
    reference: Reference | None = None
    reference_reason: str | None = "the model's folder holds nothing of its training scans"
    validation: Mapping[str, Any] = field(default_factory=dict)

    def judge(self, estimate: SeverityEstimate, findings: Sequence[Finding] = ()) -> Judgement:
        """Calibrate, decide, and say when not to rely on it.

        Args:
            estimate: of one scan.
            findings: of the quality check of that scan.
        """
        probability = self.calibrator(estimate.probability)
        bags = tuple(map(self.calibrator, estimate.bags))
        ends = mean_interval(estimate.bags)
        low, high = (None, None) if ends is None else map(self.calibrator, ends)
        threshold = self.operating_point.threshold
        open_ends = (probability, probability) if low is None or high is None else (low, high)
        straddled = self.operating_point.straddled(*open_ends)
        reasons = [] if straddled is None else [straddled]
        if not self.operating_point.informative:
            reasons.insert(0, f"{NO_THRESHOLD}: {self.operating_point.reason}")
        limiting = sorted({f.code for f in findings if f.level == "warning" and f.code in LIMITING_FINDINGS})
        if limiting:
            reasons.append(f"the quality check warns of {', '.join(limiting)}")
        distance, limit = None, None
        if self.reference is not None and (vector := self.reference.vector(estimate)):
            distance, limit = self.reference.distance(vector), self.reference.limit
            if distance > limit:
                reasons.append(
                    f"the scan is unlike the training scans: distance {distance:.2f}, usual up to {limit:.2f}"
                )
        severe = probability >= threshold
        return Judgement(
            probability, bags, low, high, threshold, severe, bool(reasons), tuple(reasons), distance, limit
        )

    def to_card(self) -> dict[str, Any]:
        """The entry ``confidence`` of a model card; the reference's vectors lie beside it."""
        found: dict[str, Any] = {
            "calibration": asdict(self.calibrator),
            "operating_point": asdict(self.operating_point),
            "validation": dict(self.validation),
            "reference": None,
            "reference_reason": self.reference_reason,
        }
        if self.reference is not None:
            content = _reference_bytes(self.reference)
            found["reference"] = {
                "version": self.reference.version,
                "scans": len(self.reference.vectors),
                "limit": self.reference.limit,
                "usual": [round(value, 6) for value in self.reference.usual],
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        return found

    def save_reference(self, folder: Path) -> None:
        """Write ``reference.safetensors`` into a model folder, or remove one that does not belong there."""
        if self.reference is None:
            (folder / REFERENCE_FILE).unlink(missing_ok=True)
            return
        with atomic_path(folder / REFERENCE_FILE) as temporary:
            temporary.write_bytes(_reference_bytes(self.reference))


def read_confidence(folder: Path, card: Mapping[str, Any]) -> Confidence:
    """What a model folder says of its confidence; the defaults for a model that says nothing.

    Raises:
        ModelError: the entry or the file is damaged.
    """
    entry = card.get("confidence")
    if entry is None:
        return Confidence()
    try:
        calibrator = Calibrator(**_tuples(entry["calibration"]))
        point = OperatingPoint.from_card(entry["operating_point"])
        about, reason = entry["reference"], entry["reference_reason"]
        reference = None if about is None else _read_reference(folder / REFERENCE_FILE, about)
        if reference is not None and not np.isfinite(reference.limit):
            reference, reason = None, "the stored limit for unusual scans is infinite, so that every scan would pass"
        return Confidence(calibrator, point, reference, reason, entry["validation"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            "The confidence entry of the model card is damaged",
            found=f"{type(error).__name__}: {error}",
            mend="copy the whole model folder again, or train the model again",
        ) from None


def mean_interval(bags: Sequence[float], level: float = INTERVAL_LEVEL) -> tuple[float, float] | None:
    """Interval of the mean probability over endlessly many bags; None for fewer than two bags.

    Student's t of the mean probability, taken to the log-odds by the delta method so that it stays within 0 and 1. It
    always holds the mean of ``bags``.
    """
    from scipy.special import stdtrit

    if len(bags) < 2:
        return None
    values = np.clip(np.asarray(bags, dtype=np.float64), _EDGE, 1 - _EDGE)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / np.sqrt(len(bags))
    reach = float(stdtrit(len(bags) - 1, 0.5 + level / 2)) * error / (mean * (1 - mean))
    low, high = (float(_expit(_logit(mean) + sign * reach)) for sign in (-1, 1))
    exact = float(np.mean(bags))  # bags of 0 or 1 were kept from the ends above
    return min(low, exact), max(high, exact)


def _logit(probability: Any) -> Any:
    kept = np.clip(probability, _EDGE, 1 - _EDGE)
    return np.log(kept) - np.log1p(-kept)


def _expit(odds: Any) -> Any:
    return 1 / (1 + np.exp(-odds))


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}


def _reference_bytes(reference: Reference) -> bytes:
    import safetensors.numpy

    return safetensors.numpy.save({_TENSORS[reference.version]: np.ascontiguousarray(reference.vectors)})


def _read_reference(path: Path, about: Mapping[str, Any]) -> Reference:
    import safetensors
    import safetensors.numpy

    version = int(about.get("version", 1))  # the first version did not tell
    if version not in _TENSORS:
        raise ModelError(
            f"{path.name} is of a version that is not known here",
            found=version,
            expected=f"one of {', '.join(map(str, _TENSORS))}",
            mend="use the m2unet that trained the model, or a newer one",
        )
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise ValueError("another file than the model card was written with")
        vectors = safetensors.numpy.load(content)[_TENSORS[version]]
    except (OSError, safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path.name} cannot be used", found=error, mend="copy the whole model folder again, or train it again"
        ) from None
    return Reference(vectors, float(about["limit"]), tuple(about["usual"]), version)
