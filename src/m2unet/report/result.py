"""``result.json``: the schema of what is written for each predicted scan.

The JSON schema is ``ResultDocument.model_json_schema()``. A value that cannot be had is null with a reason beside it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

RESULT_SCHEMA = "m2unet.result/1"
NOTICE = "Research use only. Not a medical device; not for diagnosis or treatment."


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
    """Severity: mean probability of severe over seeded bags and its standard deviation over them."""

    probability: float | None
    spread: float | None
    bags: tuple[float, ...] = ()
    seed: int | None = None
    reason: str | None = None


class QuantityPart(_Part):
    """Volume of one lobe, one side (``right``, ``left``) or both lungs (``lungs``)."""

    region: str
    volume_ml: float | None
    partial: bool = False
    reason: str | None = None


class LobesPart(_Part):
    """The lobe mask, a file beside this one in the input's geometry, and what was measured in it."""

    mask: str | None
    codes: dict[str, int]
    volumes: tuple[QuantityPart, ...] = ()
    reason: str | None = None


class ModelPart(_Part):
    """Which model: its name, preset, and the SHA-256 of its weights file."""

    name: str
    preset: str
    weights_sha256: str
    trained_on: str | None


class ResultDocument(_Part):
    """Everything said of one scan."""

    schema_version: Literal["m2unet.result/1"] = RESULT_SCHEMA
    notice: str = NOTICE
    case: str
    source_fingerprint: str
    scan: ScanPart
    findings: tuple[FindingPart, ...]
    severity: SeverityPart
    lobes: LobesPart
    montage: str | None
    model: ModelPart
    versions: dict[str, str]
    seconds: dict[str, float]
