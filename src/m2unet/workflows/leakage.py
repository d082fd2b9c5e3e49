"""Leakage: no patient, and no image, may lie on both sides of a split.

Images are compared by the hash of their prepared voxels, so the same scan under two names is found. Patients are
compared by their pseudonyms, which mean the same person only within one way of pseudonymising.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from m2unet.cohort.folds import Split
from m2unet.cohort.store import Store
from m2unet.errors import RunError
from m2unet.files import write_json
from m2unet.workflows.run_folder import read_json

logger = logging.getLogger(__name__)

TRAINING_FILE = "training_scans.json"
SCHEMA = "m2unet.training-scans/1"


@dataclass(frozen=True)
class KnownScan:
    """What a scan is compared by.

    Attributes:
        scan_id: its name.
        patient_id: pseudonym of its patient, None where unknown.
        content_sha256: hash of its prepared voxels, None where unknown.
        use: the side it is on.
    """

    scan_id: str
    patient_id: str | None
    content_sha256: str | None
    use: str


@dataclass(frozen=True)
class Leakage:
    """What a check found.

    Attributes:
        checked: whether there was something to compare with.
        same_patient: scans on one side whose patient is on another, too.
        same_content: pairs of scans on different sides with the same voxels.
        reason: why nothing could be checked, or only a part.
    """

    checked: bool
    same_patient: tuple[str, ...] = ()
    same_content: tuple[tuple[str, str], ...] = ()
    reason: str | None = None

    @property
    def found(self) -> bool:
        """Whether anything lies on both sides."""
        return bool(self.same_patient or self.same_content)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {**asdict(self), "found": self.found}

    @property
    def said(self) -> str:
        """In words."""
        if not self.checked:
            return f"not checked: {self.reason}"
        if not self.found:
            return "no patient and no image on both sides" + (f" ({self.reason})" if self.reason else "")
        parts = []
        if self.same_content:
            pairs = ", ".join(f"{one} = {other}" for one, other in self.same_content[:5])
            parts.append(f"{len(self.same_content)} image(s) on both sides ({pairs})")
        if self.same_patient:
            parts.append(f"{len(self.same_patient)} scan(s) of patients on both sides")
        return "; ".join(parts)


def compare(scans: Sequence[KnownScan], reason: str | None = None) -> Leakage:
    """Find patients and images that are on more than one side."""
    sides: dict[str, set[str]] = {}
    contents: dict[str, KnownScan] = {}
    pairs: list[tuple[str, str]] = []
    for scan in scans:
        if scan.patient_id is not None:
            sides.setdefault(scan.patient_id, set()).add(scan.use)
        if scan.content_sha256 is not None:
            first = contents.setdefault(scan.content_sha256, scan)
            if first.use != scan.use:
                pairs.append((first.scan_id, scan.scan_id))
    shared = {patient for patient, uses in sides.items() if len(uses) > 1}
    return Leakage(True, tuple(s.scan_id for s in scans if s.patient_id in shared), tuple(pairs), reason)


def known_scans(store: Store, split: Split) -> list[KnownScan]:
    """The scans of a split that the store holds or that it has rows for."""
    found = []
    for use, scan_ids in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        for scan_id in scan_ids:
            row = store.rows.get(scan_id)
            held = store.has(scan_id)
            if row is None and not held:
                continue
            content = store.record(scan_id).content_sha256 if held else None
            found.append(KnownScan(scan_id, None if row is None else row.patient_id, content, use))
    return found


def check_split(store: Store, split: Split, *, by: Literal["patient", "scan"] = "patient") -> Leakage:
    """Refuse a split that leaks.

    Args:
        store: of its scans.
        split: which are used for what.
        by: ``scan`` lets a patient be on several sides, and warns; ``patient`` does not.

    Raises:
        RunError: naming the scans.
    """
    found = compare(known_scans(store, split))
    if not found.found:
        return found
    if by == "scan":
        logger.warning("the split leaks, as splits by scan do: %s", found.said)
        return found
    raise RunError(
        "The split leaks: training, validation and test scans are not of different patients and images",
        found=found.said,
        expected="each patient, and each image, on one side only",
        mend="give the rows of one image or person the same patient_id, or take the duplicates out of the manifest, "
        "and make the split again",
    )


def record_training(store: Store, split: Split, run: Path, others: Iterable[KnownScan] = ()) -> None:
    """Keep in the run folder what later evaluations are compared with: training and validation scans.

    Args:
        store: of the scans.
        split: which are used for what.
        run: the run folder.
        others: scans that a model used by this one has seen.
    """
    write_training([*(scan for scan in known_scans(store, split) if scan.use != "test"), *others], run)


def write_training(scans: Sequence[KnownScan], run: Path) -> None:
    """Write ``training_scans.json``: the scans that a run's model has seen, none if it saw no patient."""
    write_json(run / TRAINING_FILE, {"schema": SCHEMA, "scans": [asdict(scan) for scan in scans]})


def read_training(run: Path) -> list[KnownScan] | None:
    """The scans that a run's model has seen; None where no file beside the model names them.

    Args:
        run: the run folder or its model folder.

    Raises:
        RunError: if the file is damaged.
    """
    path = next((p for p in (run / TRAINING_FILE, run.parent / TRAINING_FILE) if p.is_file()), None)
    if path is None:
        return None
    values: Mapping[str, Any] = read_json(path)
    try:
        return [
            KnownScan(scan["scan_id"], scan["patient_id"], scan["content_sha256"], "training")
            for scan in values["scans"]
        ]
    except (KeyError, TypeError) as error:
        raise RunError(f"{TRAINING_FILE} is damaged", found=error, mend="train the model again") from None


def refuse_other_images(store: Store, split: Split, run: Path) -> None:
    """Refuse to go on with a run that was trained on other images, whose scans have the same names.

    Raises:
        RunError: naming some of them.
    """
    path = run / TRAINING_FILE
    if not path.is_file():
        return
    try:
        known = {scan["scan_id"]: scan["content_sha256"] for scan in read_json(path)["scans"]}
    except (KeyError, TypeError):
        return
    now = {scan.scan_id: scan.content_sha256 for scan in known_scans(store, split)}
    other = [name for name, content in known.items() if content and now.get(name) not in (None, content)]
    if other:
        raise RunError(
            "The run was made with other images under the same names",
            found=", ".join(other[:5]),
            mend="choose another folder",
        )


def check_test(run: Path | None, tested: Iterable[KnownScan]) -> Leakage:
    """Compare scans to be tested with those a run was trained and validated on.

    Args:
        run: the run folder or its model folder; None if unknown.
        tested: the scans.
    """
    known = None if run is None else read_training(run)
    if known is None:
        return Leakage(False, reason=f"there is no {TRAINING_FILE} beside the model, which names its training scans")
    against = list(tested)
    blind = sum(scan.content_sha256 is None for scan in against)
    reason = f"the voxels of {blind} scan(s) could not be compared" if blind else None
    found = compare([*known, *against], reason)
    names = {scan.scan_id for scan in against}
    if found.found:
        logger.warning("test scans were seen in training: %s", found.said)
    return Leakage(True, tuple(s for s in found.same_patient if s in names), found.same_content, reason)
