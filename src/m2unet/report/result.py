"""``result.json``: the schema of what is written for each predicted scan.

The JSON schema is ``ResultDocument.model_json_schema()``. A value that cannot be had is null with a reason beside it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

NOTICE = "Research use only. Not a medical device; not for diagnosis or treatment."
NOT_CALIBRATED = "The probability is not calibrated: read it as a score from 0 to 1, not as a risk."
PHANTOM_WARNING = "Trained on digital phantoms; not for patients."
SYNTHETIC_WARNING = "Lobes by a network that was trained on invented images alone: look at them before using a figure."


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScanPart(_Part):
    """The scan as it was read. Sizes and spacings are of the canonical LPS array, (z, y, x).

    ``digest`` says which scan it is without saying whose: SHA-256 of the DICOM series' UID, of the content of any other
    file. ``images`` is that of the UIDs of the series' images. Both are None in results of versions that kept none.
    """

    format: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    digest: str | None = None
    images: str | None = None


class FindingPart(_Part):
    """A quality finding, see :class:`m2unet.ct.findings.Finding`."""

    code: str
    level: Literal["error", "warning", "note"]
    found: str
    mend: str


class ReliabilityBinPart(_Part):
    """One bin of the model's reliability diagram on its validation scans; None in an empty one."""

    low: float
    high: float
    count: int
    mean_probability: float | None
    share_severe: float | None


class TopPatchPart(_Part):
    """A patch that spoke for severe: its slice, counted from 1 at the feet, its box ``(y0, y1, x0, x1)`` and strongest
    position ``(y, x)`` in voxels of the LPS array, its part of its bag's log-odds, and its share of all parts that
    spoke for severe in that bag."""

    slice_number: int
    box: tuple[int, int, int, int]
    peak: tuple[int, int]
    log_odds: float
    share: float
    lobe: str | None = None


class ExplanationPart(_Part):
    """Where the severity comes from.

    ``heat`` is the map's file: percent of the largest heat, which is ``peak_log_odds``; positive speaks for severe.
    ``log_odds`` is the mean over the bags of the network's log-odds, ``base_log_odds`` that of bags of average
    positions, and ``looked_at`` the share of the body crop that any patch covered.
    """

    heat: str | None
    peak_log_odds: float
    log_odds: float
    base_log_odds: float
    looked_at: float
    patches: tuple[TopPatchPart, ...] = ()


class SeverityPart(_Part):
    """Severity: mean probability of severe over seeded bags and its standard deviation over them, calibrated if the
    model is.

    ``low`` and ``high`` are the least and the greatest bag, ``interval`` the 95 % interval of the mean over endlessly
    many bags. They tell how much the random patches matter, and nothing of how often the model is right; of a method
    without bags ``drawn`` says what takes their place. ``raw`` is what the model itself gives. ``answer`` is ``severe``
    from ``threshold`` on, ``non-severe``, or ``uncertain, read by a human`` for ``reasons``. ``distance`` is that of
    the scan to the training scans, ``distance_limit`` the largest that passes.
    """

    probability: float | None
    spread: float | None
    low: float | None = None
    high: float | None = None
    bags: tuple[float, ...] = ()
    drawn: str | None = None
    seed: int | None = None
    calibrated: bool = False
    calibration: str = NOT_CALIBRATED
    raw: float | None = None
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    threshold_rule: str | None = None
    answer: str | None = None
    abstained: bool = False
    reasons: tuple[str, ...] = ()
    distance: float | None = None
    distance_limit: float | None = None
    distance_reason: str | None = None
    reliability: tuple[ReliabilityBinPart, ...] = ()
    explanation: ExplanationPart | None = None
    reason: str | None = None


class QuantityPart(_Part):
    """Figures of one lobe, one side (``right``, ``left``) or both lungs (``lungs``).

    ``partial`` says that the volume is known to be too small, ``cut`` at which edges of the field of view. The four
    bands count every voxel by its HU; opacity is disease only, see :mod:`m2unet.quantify.opacity`. ``lobar_score`` is
    the lobe's part of the lobar CT score, 0-5.
    """

    region: str
    volume_ml: float | None
    partial: bool = False
    cut: tuple[str, ...] = ()
    mean_hu: float | None = None
    emphysema_ml: float | None = None
    aerated_ml: float | None = None
    ground_glass_band_ml: float | None = None
    consolidation_band_ml: float | None = None
    opacity_ml: float | None = None
    opacity_percent: float | None = None
    ground_glass_ml: float | None = None
    ground_glass_percent: float | None = None
    consolidation_ml: float | None = None
    consolidation_percent: float | None = None
    opacity_mean_hu: float | None = None
    lobar_score: int | None = None
    reason: str | None = None


class RegionPart(_Part):
    """One of the twenty regions of the CT severity score."""

    region: str
    segment: str
    lobe: str
    volume_ml: float | None
    opacity_percent: float | None
    score: int | None
    reason: str | None = None


class ScorePart(_Part):
    """A CT score: its total, or the bounds of it where a part could not be scored."""

    name: str
    total: int | None
    least: int
    most: int
    highest: int
    severe: bool | None = None
    reason: str | None = None


class StepPart(_Part):
    """A post-processing step of the lobe mask and what it changed; ``change_ml`` by lobe."""

    name: str
    pieces: int
    voxels: int
    ml: float
    change_ml: dict[str, float] = {}


class LobesPart(_Part):
    """The lobe mask, a file beside this one in the input's geometry, and what was measured in it."""

    mask: str | None
    codes: dict[str, int]
    volumes: tuple[QuantityPart, ...] = ()
    regions: tuple[RegionPart, ...] = ()
    scores: tuple[ScorePart, ...] = ()
    airway_ml: float | None = None
    airway_reason: str | None = None
    postprocessing: tuple[StepPart, ...] = ()
    opacity_mask: str | None = None
    opacity_codes: dict[str, int] = {}
    reason: str | None = None

    def region(self, name: str) -> QuantityPart | None:
        """The figures of a lobe, a side or both lungs by name."""
        return next((part for part in self.volumes if part.region == name), None)

    def score(self, name: str) -> ScorePart | None:
        """A score by name: ``ct-severity-score`` or ``lobar-ct-score``."""
        return next((part for part in self.scores if part.name == name), None)


class ModelPart(_Part):
    """Which model: its name, preset, the SHA-256 of its weights file, and what computed it in which precision."""

    name: str
    preset: str
    weights_sha256: str
    trained_on: str | None
    engine: str = "torch-float32"

    @property
    def of_phantoms(self) -> bool:
        """Whether its card says that it was trained on phantoms."""
        return "phantom" in (self.trained_on or "").lower()


class ResultDocument(_Part):
    """Everything said of one scan.

    ``files`` names every other file written for it, by what it is: ``lobes``, ``opacity``, ``montage``, ``thumbnail``,
    ``report``, ``viewer``, ``viewer_data``, and whatever ``exporters`` added, which ran in this order. ``settings`` are
    those that the figures depend on. ``explained`` says that a heat map was asked for, ``identified`` that the report
    shows who the patient is, because that was asked for.
    """

    schema_version: Literal["m2unet.result/1"] = "m2unet.result/1"
    notice: str = NOTICE
    warnings: tuple[str, ...] = ()
    case: str
    source_fingerprint: str
    scan: ScanPart
    findings: tuple[FindingPart, ...]
    severity: SeverityPart
    lobes: LobesPart
    montage: str | None
    files: dict[str, str] = {}
    exporters: tuple[str, ...] = ()
    explained: bool = False
    identified: bool = False
    model: ModelPart
    settings: dict[str, Any] = {}
    versions: dict[str, str]
    seconds: dict[str, float]
