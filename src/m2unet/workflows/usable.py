"""Which scans of a split a method can learn from: those with a lobe mask, those with a severity, or those with either.

A method for lobes alone has no loss on a scan without a mask, and a method for severity alone none on a scan without a
severity. Such scans are left out of training and of validation alike, and the run folder says which and why.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m2unet.cohort.folds import Label, Split
from m2unet.cohort.manifest import ManifestRow
from m2unet.cohort.store import Store
from m2unet.errors import RunError
from m2unet.files import write_json
from m2unet.models.base import LOBES, SEVERITY

logger = logging.getLogger(__name__)

LEFT_OUT_FILE = "left_out.json"
SCHEMA = "m2unet.left-out/1"
NAMES = {LOBES: "lobe mask", SEVERITY: "severity"}


@dataclass(frozen=True)
class ScanLabels:
    """What is known of a scan.

    Attributes:
        lobes: whether it has a lobe mask.
        severity: 1 severe, 0 non-severe, None unknown.
    """

    lobes: bool
    severity: int | None

    def missing(self, tasks: Collection[str]) -> str | None:
        """Why a method with these tasks cannot learn from the scan; None where it can."""
        known = {LOBES: self.lobes, SEVERITY: self.severity is not None}
        if any(known[task] for task in tasks):
            return None
        names = [NAMES[task] for task in sorted(tasks)]
        return f"no {names[0]}" if len(names) == 1 else f"neither {' nor '.join(names)}"


@dataclass(frozen=True)
class UsableScans:
    """What a method trains and validates on.

    Attributes:
        split: the split with the usable training and validation scans; the test scans as they were.
        left_out: by scan id, the use it would have had and why it has none.
    """

    split: Split
    left_out: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[str, int]:
        """How many scans were left out, by reason."""
        return dict(Counter(why for _, why in self.left_out.values()))

    def lines(self) -> list[str]:
        """What a user is told; empty where nothing was left out."""
        if not self.left_out:
            return []
        counts = Counter(use for use, _ in self.left_out.values())
        used = {"train": len(self.split.train), "validation": len(self.split.validation)}
        parts = [f"{counts[use]} of {used[use] + counts[use]} {use} scans" for use in used if counts[use]]
        said = [f"{' and '.join(parts)} left out, which this method cannot learn from: {', '.join(self.reasons)}"]
        if counts["validation"] and not self.split.validation:
            said.append("no validation scan is left: nothing is validated, and early stopping has nothing to go by")
        return said

    def to_dict(self) -> dict[str, Any]:
        """What ``left_out.json`` holds."""
        return {
            "schema": SCHEMA,
            "used": {"train": len(self.split.train), "validation": len(self.split.validation)},
            "left_out": dict(Counter(use for use, _ in self.left_out.values())),
            "reasons": self.reasons,
            "scans": {scan_id: {"use": use, "reason": why} for scan_id, (use, why) in sorted(self.left_out.items())},
        }


def labels_of(store: Store, scan_id: str) -> ScanLabels:
    """What is known of a scan of a store; its mask is the prepared one, or the manifest's where nothing is prepared."""
    row = store.rows.get(scan_id)
    named = row is not None and row.lobes is not None
    lobes = store.record(scan_id).lobes is not None if store.has(scan_id) else named
    return ScanLabels(lobes, None if row is None else row.severity)


def row_labels(rows: Iterable[ManifestRow]) -> list[ScanLabels]:
    """What a manifest says of its scans."""
    return [ScanLabels(row.lobes is not None, row.severity) for row in rows]


def usable_scans(store: Store, split: Split, tasks: Collection[str]) -> UsableScans:
    """Leave out the training and validation scans that a method cannot learn from.

    Args:
        store: of the scans, with the rows that bring their severities.
        split: which scans are used for what.
        tasks: of the method, see :attr:`m2unet.models.methods.Method.tasks`.
    """
    left_out: dict[str, tuple[str, str]] = {}
    for use, scan_ids in (("train", split.train), ("validation", split.validation)):
        for scan_id in scan_ids:
            why = labels_of(store, scan_id).missing(tasks)
            if why is not None:
                left_out[scan_id] = (use, why)
    train, validation = (tuple(s for s in part if s not in left_out) for part in (split.train, split.validation))
    return UsableScans(Split(train, validation, split.test), left_out)


def check_usable(scans: Sequence[ScanLabels], tasks: Collection[str]) -> None:
    """Refuse to train a task for which no scan has a label.

    Args:
        scans: what is known of those to train on.
        tasks: of the method.

    Raises:
        RunError: naming what is missing.
    """
    if LOBES in tasks and not any(scan.lobes for scan in scans):
        raise RunError(
            "No training scan has a lobe mask",
            found=f"{len(scans)} training scans",
            expected="at least one with a mask",
            mend="fill the manifest's column lobes, or use --model cls_only for severity alone",
        )
    known = {scan.severity for scan in scans if scan.severity is not None}
    if SEVERITY in tasks and len(known) < 2:
        raise RunError(
            "Training severity needs scans of both classes",
            found=f"severities {sorted(known)} in {len(scans)} training scans",
            expected="0 and 1",
            mend="fill the manifest's column severity, or use --model seg_only for lobes alone",
        )


def fold_label(tasks: Collection[str]) -> Label:
    """What every fold and every validation part needs for a method with these tasks."""
    return "severity" if SEVERITY in tasks else "lobes"


def record_left_out(found: UsableScans, run: Path) -> None:
    """Write ``left_out.json`` to a run folder and tell the user."""
    write_json(run / LEFT_OUT_FILE, found.to_dict())
    for line in found.lines():
        logger.warning("%s", line)
