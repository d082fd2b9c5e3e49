"""What our cross-validations gave: figures a fold, and one row a tested scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from m2unet.evaluation.summary import Spread, summarise_folds

OVERLAPS = ("dsc", "sen", "ppv")


@dataclass(frozen=True)
class ScanResult:
    """One scan, tested by the model of the fold that did not train on it.

    Attributes:
        scan_id, patient_id: which.
        fold: whose model.
        severity: true class, 1 severe, None unknown.
        probability: of severe; None where the method gives none or failed.
        overlap: ``dsc``, ``sen``, ``ppv``, mean over lobes; None where undefined.
    """

    scan_id: str
    patient_id: str
    fold: int
    severity: int | None
    probability: float | None
    overlap: Mapping[str, float | None]


@dataclass(frozen=True)
class Outcome:
    """One method over the folds that are finished.

    Attributes:
        folds: by fold number, its figures.
        scans: the tested scans of those folds.
        size_mib: float32 weights as trained; None for a method without weights.
        full_size_mib: the same network at the paper's size.
        seconds: processor seconds a fold, training and evaluation, on average; None if not known.
    """

    folds: Mapping[int, Mapping[str, float | None]]
    scans: Sequence[ScanResult]
    size_mib: float | None = None
    full_size_mib: float | None = None
    seconds: float | None = None

    def figures(self) -> dict[str, Spread]:
        """Mean and deviation over the folds, and the size."""
        found = summarise_folds(list(self.folds.values())) if self.folds else {}
        if self.size_mib is not None:
            found["size_mib"] = Spread(self.size_mib, None, 1)
        return found


@dataclass(frozen=True)
class Setting:
    """On what our figures were obtained; it stands under every table.

    Attributes:
        data: the cohort, in words.
        how: preset, seed, folds, and what was made smaller.
        warnings: what a reader must know, such as folds still missing.
    """

    data: str
    how: str
    warnings: tuple[str, ...] = ()

    def line(self) -> str:
        """The one line."""
        return f"Ours: {self.data}; {self.how}."
