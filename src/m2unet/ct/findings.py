"""Quality findings: what a check noticed about a scan, how bad it is, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from m2unet.errors import ScanError

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One observation about a scan.

    Attributes:
        code: stable kebab-case identifier, e.g. ``missing-slices``.
        level: ``error`` stops the scan, ``warning`` travels into its result, ``note`` is for the curious.
        found: what was found, in words, without patient identifiers.
        mend: how to mend it.
    """

    code: str
    level: Level
    found: str
    mend: str

    def to_dict(self) -> dict[str, str]:
        """The finding as a JSON-ready mapping."""
        return asdict(self)


class QualityError(ScanError):
    """A scan whose findings forbid its use.

    Args:
        findings: all findings of the scan; at least one is an error.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        errors = [finding for finding in self.findings if finding.level == "error"]
        super().__init__(
            "The scan cannot be used",
            found="; ".join(f"{finding.code}: {finding.found}" for finding in errors),
            mend="; ".join(finding.mend for finding in errors),
        )
