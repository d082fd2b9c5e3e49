"""``result.json``: the schema of what is written for each predicted scan.

The JSON schema is ``ResultDocument.model_json_schema()``. A value that cannot be had is null with a reason beside it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

NOTICE = "Research use only. Not a medical device; not for diagnosis or treatment."
NOT_CALIBRATED = "The probability is not calibrated: read it as a score from 0 to 1, not as a risk."
PHANTOM_WARNING = "Trained on digital phantoms; not for patients."


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScanPart(_Part):
    """The scan as it was read. Sizes and spacings are of the canonical LPS array, (z, y, x)."""

    format: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


class FindingPart(_Part):
    """A quality finding, see :class:`m2unet.ct.findings.Finding`."""

    code: str
    level: Literal["error", "warning", "note"]
    found: str
    mend: str


class SeverityPart(_Part):
    """Severity: mean probability of severe over seeded bags and its standard deviation over them.

    ``low`` and ``high`` are the least and the greatest bag. They tell how much the random patches matter, and nothing
    of how often the model is right.
    """

    probability: float | None
    spread: float | None
    low: float | None = None
    high: float | None = None
    bags: tuple[float, ...] = ()
    seed: int | None = None
    calibrated: bool = False
    calibration: str = NOT_CALIBRATED
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
    """Which model: its name, preset, and the SHA-256 of its weights file."""

    name: str
    preset: str
    weights_sha256: str
    trained_on: str | None

    @property
    def of_phantoms(self) -> bool:
        """Whether its card says that it was trained on phantoms."""
        return "phantom" in (self.trained_on or "").lower()


class ResultDocument(_Part):
    """Everything said of one scan.

    ``files`` names every other file written for it, by what it is: ``lobes``, ``opacity``, ``montage``, ``thumbnail``,
    ``report``, ``viewer``, ``viewer_data``, and whatever ``exporters`` added, which ran in this order. ``settings`` are
    those that the figures depend on. ``identified`` says that the report shows who the patient is, because that was
    asked for.
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
    identified: bool = False
    model: ModelPart
    settings: dict[str, Any] = {}
    versions: dict[str, str]
    seconds: dict[str, float]
