"""Cross-validation folds: by patient, stratified by severity, saved and reusable.

With five folds each is 70 % training, 10 % validation and 20 % test (He et al. 2020, Sect. III-B). Patients whose
severity is unknown form a stratum of their own: their lobes are then tested as often as anybody's.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from m2unet.cohort.manifest import ManifestRow
from m2unet.errors import ManifestError, RunError
from m2unet.files import write_text

By = Literal["patient", "scan"]
Label = Literal["severity", "lobes"]

SCHEMA = "m2unet/folds"
VERSION = 1
VALIDATION_SHARE = 0.1

_UNKNOWN = -1
_BARE = 2
"""Stratum of those without a lobe mask, where lobes are what counts."""
_STRATUM_NAMES = {1: "severe", 0: "non-severe", _UNKNOWN: "of unknown severity"}


@dataclass(frozen=True)
class Split:
    """One fold: which scans train, choose hyper-parameters, and test. Each tuple holds sorted scan ids."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def make_folds(
    rows: Iterable[ManifestRow], *, by: By = "patient", seed: int, folds: int = 5, label: Label = "severity"
) -> list[Split]:
    """Part a cohort for cross-validation.

    The test sets come from scikit-learn's ``StratifiedGroupKFold``; of the rest, about a tenth of all patients of
    each stratum, and at least one, validate. A patient with any severe scan counts as severe. Every patient is in
    exactly one test set, and never on two sides of one fold. The order of the rows does not matter.

    Args:
        rows: the scans.
        by: ``patient`` keeps a patient's scans together; ``scan`` parts them freely, which lets a patient be seen in
            training and tested (only to compare with figures obtained so).
        seed: same rows and seed, same folds.
        folds: at least 3.
        label: what every fold needs. ``lobes``, for methods that give lobes alone, shares the patients with a lobe mask
            evenly among the folds, and by severity too where each severity has enough of them; where every scan has a
            mask, that gives the folds of ``severity``.

    Raises:
        ManifestError: if a severity has fewer patients (or scans) than folds, or only one severity occurs; under
            ``lobes``, if fewer patients (or scans) than folds have a mask.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if folds < 3:
        raise ManifestError("Too few folds to train, validate and test", [f"{folds} folds; at least 3 are needed"])
    scans = sorted(rows, key=lambda row: row.scan_id)
    groups = [row.patient_id if by == "patient" else row.scan_id for row in scans]
    stratum = _strata(scans, groups, label)
    if label == "lobes":
        stratum = _enough_masks(stratum, by, folds)
    else:
        _check_counts(stratum, by, folds)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # scans of unknown severity may be fewer than the folds
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        parts = list(splitter.split(np.zeros(len(scans)), [stratum[group] for group in groups], groups))
    splits = []
    for number, (rest, test) in enumerate(parts):
        rng = np.random.default_rng([seed, number])
        held = _validation_groups({groups[i] for i in rest}, stratum, VALIDATION_SHARE, rng)
        splits.append(
            Split(
                train=tuple(scans[i].scan_id for i in rest if groups[i] not in held),
                validation=tuple(scans[i].scan_id for i in rest if groups[i] in held),
                test=tuple(scans[i].scan_id for i in test),
            )
        )
    return splits


def hold_out(
    rows: Iterable[ManifestRow], *, share: float = VALIDATION_SHARE, seed: int, label: Label = "severity"
) -> Split:
    """Hold a share of the patients out for validation and train on all others; nothing is left to test.

    Args:
        rows: the scans.
        share: of each stratum's patients, from 0 (none) to below 1; above 0 at least one of each stratum that has two.
        seed: same rows and seed, same split.
        label: ``lobes`` makes the patients without a lobe mask a stratum of their own, so that the share is held out of
            those with one.
    """
    scans = sorted(rows, key=lambda row: row.scan_id)
    patients = [row.patient_id for row in scans]
    stratum = _strata(scans, patients, label)
    held = _validation_groups(set(patients), stratum, share, np.random.default_rng(seed)) if share else set()
    return Split(
        train=tuple(row.scan_id for row in scans if row.patient_id not in held),
        validation=tuple(row.scan_id for row in scans if row.patient_id in held),
        test=(),
    )


def save_folds(splits: Sequence[Split], path: str | Path, *, by: By, seed: int) -> None:
    """Write folds as JSON, atomically.

    Raises:
        StoreError: if the file cannot be written.
    """
    folds = [{"train": split.train, "validation": split.validation, "test": split.test} for split in splits]
    values = {"schema": SCHEMA, "version": VERSION, "by": by, "seed": seed, "folds": folds}
    write_text(Path(path), json.dumps(values, indent=1) + "\n")


def load_folds(path: str | Path, rows: Iterable[ManifestRow] | None = None, *, by: By | None = None) -> list[Split]:
    """Read what :func:`save_folds` wrote.

    Args:
        path: the JSON file.
        rows: if given, the folds must be folds of exactly these scans.
        by: if given, the folds must have been made so.

    Raises:
        RunError: unreadable file, other schema, another cohort or way of parting, or one scan or patient on two
            sides of a fold.
    """
    path = Path(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if (values["schema"], values["version"]) != (SCHEMA, VERSION):
            raise ValueError(f"{values['schema']} version {values['version']}")
        kind: By = values["by"]
        splits = [
            Split(*(tuple(map(str, fold[s])) for s in ("train", "validation", "test"))) for fold in values["folds"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path.name} does not hold folds", found=f"{type(error).__name__}: {error}", expected=f"{SCHEMA} {VERSION}"
        ) from None
    if by is not None and by != kind:
        raise RunError("The saved folds were made another way", found=f"by {kind}", expected=f"by {by}")
    if rows is not None:
        _check_splits(splits, list(rows), kind)
    return splits


def _strata(scans: Sequence[ManifestRow], groups: Sequence[str], label: Label) -> dict[str, int]:
    stratum: dict[str, int] = {}
    for row, group in zip(scans, groups, strict=True):
        own = _UNKNOWN if row.severity is None else row.severity
        stratum[group] = max(own, stratum.get(group, own))
    if label == "lobes":
        masked = {group for row, group in zip(scans, groups, strict=True) if row.lobes is not None}
        stratum = {group: own if group in masked else _BARE for group, own in stratum.items()}
    return stratum


def _enough_masks(stratum: Mapping[str, int], by: By, folds: int) -> dict[str, int]:
    """The strata for methods that give lobes alone: severities parted only where each has enough with a mask."""
    masked = {group: own for group, own in stratum.items() if own != _BARE}
    if len(masked) < folds:
        mend = "use fewer folds (3 or more), or add lobe masks" if len(masked) >= 3 else "add lobe masks"
        faults = [f"{len(masked)} {by}(s) with a lobe mask, at least {folds} are needed"]
        raise ManifestError(f"The cohort is too small for {folds} folds", faults, mend=mend)
    counts = Counter(masked.values())
    if all(counts[own] >= folds for own in _needed(counts)):
        return dict(stratum)
    return {group: own if own == _BARE else 0 for group, own in stratum.items()}


def _needed(counts: Mapping[int, int]) -> list[int]:
    return [_UNKNOWN] if set(counts) == {_UNKNOWN} else [0, 1]


def _check_counts(stratum: Mapping[str, int], by: By, folds: int) -> None:
    counts = Counter(stratum.values())
    needed = _needed(counts)
    faults = [
        f"{counts[s]} {by}(s) {_STRATUM_NAMES[s]}, at least {folds} are needed" for s in needed if counts[s] < folds
    ]
    if not counts:
        faults = ["there is no scan"]
    if faults:
        mend = f"use at most {min(counts[s] for s in needed)} folds (3 or more), or add scans"
        raise ManifestError(f"The cohort is too small for {folds} folds", faults, mend=mend)


def _validation_groups(rest: set[str], stratum: Mapping[str, int], share: float, rng: np.random.Generator) -> set[str]:
    """A share of all groups of each stratum, taken from the rest: at least one, and always leaving one to train."""
    totals = Counter(stratum.values())
    held: set[str] = set()
    for value in sorted(totals):
        members = sorted(group for group in rest if stratum[group] == value)
        count = min(max(1, round(share * totals[value])), len(members) - 1)
        if count > 0:
            held.update(members[i] for i in rng.choice(len(members), size=count, replace=False))
    return held


def _check_splits(splits: Sequence[Split], rows: Sequence[ManifestRow], by: By) -> None:
    patients = {row.scan_id: row.patient_id if by == "patient" else row.scan_id for row in rows}
    tested = sorted(scan_id for split in splits for scan_id in split.test)
    if tested != sorted(patients):
        extra, missing = set(tested) - set(patients), set(patients) - set(tested)
        raise RunError(
            "The saved folds belong to another cohort",
            found=f"{len(extra)} scan(s) the manifest lacks, {len(missing)} scan(s) in no test set, "
            f"{len(tested) - len(set(tested))} tested twice",
            mend="use the manifest they were made from, or make new folds",
        )
    for number, split in enumerate(splits):
        if sorted(split.train + split.validation + split.test) != sorted(patients):
            raise RunError(f"Fold {number} of the saved folds does not hold every scan once")
        sides = [{patients[s] for s in side} for side in (split.train, split.validation, split.test)]
        if sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2]:
            raise RunError(f"Fold {number} of the saved folds has a {by} on two sides", mend="make new folds")
