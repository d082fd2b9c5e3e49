"""Check a scan before it is used: everything reading it would say, without ever failing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2unet.ct.findings import Finding, check_accept, finding
from m2unet.ct.read import load
from m2unet.errors import M2UNetError


@dataclass(frozen=True)
class ScanCheck:
    """What a check found.

    Attributes:
        path: of the scan, as given.
        findings: errors first, then warnings and notes.
        format: ``nifti``, ``mha``, ``nrrd`` or ``dicom``; this and the rest are None for a scan that cannot be read.
        shape: ``(z, y, x)``.
        spacing_mm: ``(z, y, x)``.
        lungs_ml: air-filled lung by a coarse look; None where none was found.
    """

    path: Path
    findings: tuple[Finding, ...]
    format: str | None = None
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    lungs_ml: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the scan can be used: no finding is an error."""
        return not any(found.level == "error" for found in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The check as a JSON-ready mapping."""
        return {
            "scan": str(self.path),
            "ok": self.ok,
            "format": self.format,
            "shape": None if self.shape is None else list(self.shape),
            "spacing_mm": None if self.spacing_mm is None else [round(step, 4) for step in self.spacing_mm],
            "lungs_ml": None if self.lungs_ml is None else round(self.lungs_ml),
            "findings": [found.to_dict() for found in self.findings],
        }


def check_scan(path: str | Path, *, series: str | None = None, accept: Collection[str] = ()) -> ScanCheck:
    """Check one scan. A bad scan gives findings, never an exception.

    Args:
        path, series: as for :func:`m2unet.ct.read.read_scan`.
        accept: codes of errors that count as warnings.

    Raises:
        ConfigError: an error that cannot be accepted.
    """
    accept = check_accept(accept)
    path = Path(path)
    try:
        loaded = load(path, accept, series=series)
    except MemoryError:
        return ScanCheck(path, (finding("too-large", "there is not enough memory to read it"),))
    except M2UNetError as error:  # a missing decoder
        return ScanCheck(path, (finding("missing-codec", error.found or error.problem),))
    order = {"error": 0, "warning": 1, "note": 2}
    findings = tuple(sorted(loaded.findings, key=lambda found: order[found.level]))
    if loaded.volume is None:
        return ScanCheck(path, findings)
    volume = loaded.volume
    lungs_ml = None if loaded.lungs is None else loaded.lungs.ml
    return ScanCheck(path, findings, volume.source.format, volume.shape, volume.spacing_mm, lungs_ml)
