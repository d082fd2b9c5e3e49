"""Take corrected masks back: read what people saved, check it, and put it into a manifest to train on."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY, CodeSystem
from m2unet.cohort.corrections import FORGIVABLE, CheckedMask, MaskFault
from m2unet.cohort.label_places import measure_labels
from m2unet.cohort.lobe_codes import recode, recode_by, recognised
from m2unet.cohort.manifest import Manifest, ManifestRow, write_manifest
from m2unet.cohort.mask_files.segments import LabelFile
from m2unet.cohort.masks import read_labels, read_mask
from m2unet.ct.read import read_raw, read_scan
from m2unet.ct.volume import Volume
from m2unet.ct.write import write_mask
from m2unet.errors import ConfigError, M2UNetError, ScanError
from m2unet.files import write_json
from m2unet.inference.plausibility import check_on_scan
from m2unet.workflows.annotation import AnnotationFolder
from m2unet.workflows.progress import NoProgress, Progress

logger = logging.getLogger(__name__)

ENDINGS = (".seg.nrrd", ".seg.dcm", ".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")
SCHEMA = "m2unet.corrections/1"


@dataclass(frozen=True)
class TakenMask:
    """What became of one corrected mask.

    Attributes:
        file: its name.
        scan_id: the scan it belongs to; None if there is none of that name.
        checked: what the checks found; None if it could not be read.
        changed_share: share of the proposal's lobe voxels that the person changed; None without a proposal.
        error: why it could not be read.
    """

    file: str
    scan_id: str | None
    checked: CheckedMask | None = None
    changed_share: float | None = None
    error: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it was taken."""
        return self.checked is not None and self.checked.usable

    def lines(self) -> list[str]:
        """Faults and remarks, for the user."""
        if self.error is not None:
            return [self.error]
        faults = self.checked.faults if self.checked is not None else ()
        said = [f"{fault.code}: {fault.found}{' (accepted)' if fault.accepted else ''}" for fault in faults]
        if self.changed_share == 0:
            said.append("note: it equals the proposal, voxel for voxel")
        return said


def take_corrections(
    folder: AnnotationFolder,
    accept: Collection[str] = (),
    *,
    codes: CodeSystem = "auto",
    progress: Progress | None = None,
) -> list[TakenMask]:
    """Read every file in ``corrected/``, check it, and take those without faults.

    Taken masks go to ``taken/`` in their scan's geometry, and ``manifest.csv`` is the proposals' manifest with them
    filled in. All faults of all files are listed in ``corrections.json``.

    Args:
        folder: of the proposals.
        accept: codes of faults to live with, see :data:`m2unet.cohort.corrections.FORGIVABLE`.
        codes: whose codes label maps use; ``auto`` recognises them.
        progress: where to show progress.

    Raises:
        ConfigError: a fault that cannot be accepted, or no corrected mask.
        RunError, ManifestError: the folder holds no proposals, or its manifest is gone.
    """
    wrong = [code for code in accept if code not in FORGIVABLE]
    if wrong:
        raise ConfigError("This fault cannot be accepted", found=", ".join(wrong), expected=", ".join(FORGIVABLE))
    manifest = folder.read_manifest()
    files = sorted(path for path in folder.corrected.glob("*") if path.name.lower().endswith(ENDINGS))
    if not files:
        raise ConfigError(
            "There is no corrected mask", found=folder.corrected, expected=f"SCAN with {', '.join(ENDINGS)}"
        )
    known = {row.scan_id: row for row in manifest.rows}
    found: list[TakenMask] = []
    with (progress or NoProgress()).stage("checking masks") as step:
        for number, path in enumerate(files, 1):
            found.append(_take(path, known, found, folder, _Terms(accept, codes)))
            step(number, len(files))
    _write_manifest(folder, manifest)
    write_json(folder.path / "corrections.json", {"schema": SCHEMA, "masks": [_document(one) for one in found]})
    return found


@dataclass(frozen=True)
class _Terms:
    accept: Collection[str]
    codes: CodeSystem


def _take(
    path: Path,
    known: dict[str, ManifestRow],
    before: Sequence[TakenMask],
    folder: AnnotationFolder,
    terms: _Terms,
) -> TakenMask:
    ending = next(e for e in ENDINGS if path.name.lower().endswith(e))
    row = known.get(path.name[: -len(ending)])
    if row is None:
        return TakenMask(path.name, None, error="no scan of the manifest has this name")
    if any(one.scan_id == row.scan_id for one in before):
        return TakenMask(path.name, row.scan_id, error="this scan has another corrected mask; keep one")
    try:
        volume = read_scan(row.image, accept=row.accept)
        mask = read_corrected(path, volume, terms.codes)
        checked = check_on_scan(mask, volume, terms.accept)
        changed = _changed(mask, folder.proposal(row.scan_id), volume)
        if checked.usable:
            write_mask(volume, mask, folder.taken(row.scan_id))
        else:
            folder.taken(row.scan_id).unlink(missing_ok=True)
    except (M2UNetError, OSError) as error:
        logger.debug("%s could not be read: %s", path.name, error)
        return TakenMask(path.name, row.scan_id, error=str(error))
    return TakenMask(path.name, row.scan_id, checked, changed)


def read_corrected(path: Path, volume: Volume, codes: CodeSystem = "auto") -> NDArray[np.uint8]:
    """Read a corrected mask: a label map in any known convention, or named segments.

    What it shows is not judged here: a label map that follows no convention, but holds this package's values, is taken
    as it is, so that :func:`m2unet.cohort.corrections.check_corrected` can list its faults.

    Args:
        path: of any kind that :func:`m2unet.cohort.masks.read_lobes` reads.
        volume: its scan.
        codes: whose codes a label map uses; ``auto`` recognises them.

    Returns:
        ``[z, y, x]`` lobe codes 0-6 on the volume's grid.

    Raises:
        ScanError: unreadable, another grid, values or segments that are no lobes; all that is wrong at once.
    """
    faults: list[str] = []
    file: LabelFile | None = None
    try:
        file = read_labels(path, volume, strict=True)
    except ScanError as error:
        faults.append(str(error))
    if file is not None and file.codes is None:
        labels = measure_labels(file.array, volume)
        found = recognised(labels) if codes == "auto" else None
        if found is not None or codes != "auto":
            return recode(file.array, codes if found is None else found.codes, name=path.name)
    known = None if file is None or file.codes is None else {0, *file.codes}
    stray = _stray(file.array if file is not None else _raw_values(path), known)
    if stray:
        expected = sorted(known or range(AIRWAY + 1))
        faults.append(f"it holds values that are no lobes: {stray}; expected: {expected}")
    if faults or file is None:
        raise ScanError(f"The corrected mask {path.name} cannot be taken", found=" / ".join(faults))
    return file.array.astype(np.uint8) if file.codes is None else recode_by(file.array, file.codes)


def _stray(values: NDArray[Any] | None, known: Collection[int] | None) -> list[int]:
    """Values that mean nothing, a dozen at most."""
    if values is None:
        return []
    return sorted(set(np.unique(values).tolist()) - set(known or range(AIRWAY + 1)))[:12]


def _raw_values(path: Path) -> NDArray[Any] | None:
    """The values of a mask that does not lie on its scan, None if it cannot be read at all."""
    try:
        return read_raw(path).array
    except (M2UNetError, OSError):
        return None


def _changed(mask: NDArray[np.uint8], proposal: Path, volume: Volume) -> float | None:
    if not proposal.is_file():
        return None
    proposed = read_mask(proposal, volume)
    either = (mask > 0) | (proposed > 0)
    return float((mask != proposed)[either].mean()) if either.any() else 0.0


def _write_manifest(folder: AnnotationFolder, manifest: Manifest) -> None:
    rows = [
        replace(row, lobes=folder.taken(row.scan_id)) if folder.taken(row.scan_id).is_file() else row
        for row in manifest.rows
    ]
    write_manifest(rows, folder.manifest)


def _document(one: TakenMask) -> dict[str, Any]:
    faults: Sequence[MaskFault] = one.checked.faults if one.checked is not None else ()
    return {
        "file": one.file,
        "scan_id": one.scan_id,
        "taken": one.usable,
        "error": one.error,
        "faults": [asdict(fault) for fault in faults],
        "volumes_ml": dict(one.checked.volumes_ml) if one.checked is not None else {},
        "changed_share": one.changed_share,
    }
