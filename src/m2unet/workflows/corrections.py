"""Take corrected masks back: read what people saved, check it, and put it into a manifest to train on."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY
from m2unet.cohort.corrections import FORGIVABLE, CheckedMask, MaskFault
from m2unet.cohort.manifest import Manifest, ManifestRow, write_manifest
from m2unet.cohort.masks import read_lobe_mask, read_mask
from m2unet.ct.read import read_raw, read_scan
from m2unet.ct.volume import Volume
from m2unet.ct.write import write_mask
from m2unet.errors import ConfigError, M2UNetError, ScanError
from m2unet.export.annotators import read_segment_codes
from m2unet.files import write_json
from m2unet.inference.plausibility import check_on_scan
from m2unet.workflows.annotation import AnnotationFolder
from m2unet.workflows.progress import NoProgress, Progress

logger = logging.getLogger(__name__)

ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha")
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
    folder: AnnotationFolder, accept: Collection[str] = (), *, progress: Progress | None = None
) -> list[TakenMask]:
    """Read every file in ``corrected/``, check it, and take those without faults.

    Taken masks go to ``taken/`` in their scan's geometry, and ``manifest.csv`` is the proposals' manifest with them
    filled in. All faults of all files are listed in ``corrections.json``.

    Args:
        folder: of the proposals.
        accept: codes of faults to live with, see :data:`m2unet.cohort.corrections.FORGIVABLE`.
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
            found.append(_take(path, known, found, folder, accept))
            step(number, len(files))
    _write_manifest(folder, manifest)
    write_json(folder.path / "corrections.json", {"schema": SCHEMA, "masks": [_document(one) for one in found]})
    return found


def _take(
    path: Path,
    known: dict[str, ManifestRow],
    before: Sequence[TakenMask],
    folder: AnnotationFolder,
    accept: Collection[str],
) -> TakenMask:
    ending = next(e for e in ENDINGS if path.name.lower().endswith(e))
    row = known.get(path.name[: -len(ending)])
    if row is None:
        return TakenMask(path.name, None, error="no scan of the manifest has this name")
    if any(one.scan_id == row.scan_id for one in before):
        return TakenMask(path.name, row.scan_id, error="this scan has another corrected mask; keep one")
    try:
        volume = read_scan(row.image)
        mask = read_corrected(path, volume)
        checked = check_on_scan(mask, volume, accept)
        changed = _changed(mask, folder.proposal(row.scan_id), volume)
        if checked.usable:
            write_mask(volume, mask, folder.taken(row.scan_id))
        else:
            folder.taken(row.scan_id).unlink(missing_ok=True)
    except (M2UNetError, OSError) as error:
        logger.debug("%s could not be read: %s", path.name, error)
        return TakenMask(path.name, row.scan_id, error=str(error))
    return TakenMask(path.name, row.scan_id, checked, changed)


def read_corrected(path: Path, volume: Volume) -> NDArray[np.uint8]:
    """Read a corrected mask: a label map in this package's codes, or 3D Slicer's segments by their names.

    Args:
        path: NIfTI, MHA, NRRD or ``.seg.nrrd``.
        volume: its scan.

    Returns:
        ``[z, y, x]`` lobe codes 0-6 on the volume's grid.

    Raises:
        ScanError: unreadable, another grid, values or segments that are no lobes; all that is wrong at once.
    """
    faults: list[str] = []
    codes: dict[int, int] | None = None
    values: NDArray[np.int16] | None = None
    try:
        codes = read_segment_codes(path) if path.name.lower().endswith(".nrrd") else None
    except ScanError as error:
        faults.append(str(error))
    try:
        values = read_mask(path, volume)
    except ScanError as error:
        faults.append(str(error))
    stray = _stray(values if values is not None else _raw_values(path), codes)
    if stray:
        allowed = sorted({0, *(codes or range(AIRWAY + 1))})
        faults.append(f"it holds values that are no lobes: {stray}; expected: {allowed}")
    if faults or values is None:
        raise ScanError(f"The corrected mask {path.name} cannot be taken", found=" / ".join(faults))
    if codes is None:
        return values.astype(np.uint8)
    ours = np.zeros(values.shape, dtype=np.uint8)
    for value, code in codes.items():
        ours[values == value] = code
    return ours


def _stray(values: NDArray[Any] | None, codes: Mapping[int, int] | None) -> list[int]:
    """Values that mean nothing, a dozen at most."""
    if values is None:
        return []
    allowed = {0, *(codes if codes is not None else range(AIRWAY + 1))}
    return sorted(set(np.unique(values).tolist()) - allowed)[:12]


def _raw_values(path: Path) -> NDArray[Any] | None:
    """The values of a mask that does not lie on its scan, None if it cannot be read at all."""
    try:
        return read_raw(path).array
    except (M2UNetError, OSError):
        return None


def _changed(mask: NDArray[np.uint8], proposal: Path, volume: Volume) -> float | None:
    if not proposal.is_file():
        return None
    proposed = read_lobe_mask(proposal, volume)
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
