"""One scan of a public data set, read, checked, and its lobes recoded; a finished one is not done again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBES
from m2unet.cohort.importers.items import BinaryMasks, CodedMask, Item
from m2unet.cohort.masks import CHECKS, LobeMask, NoLobesError, read_lobe_files, read_lobes, read_mask
from m2unet.ct.read import Loaded, load
from m2unet.ct.volume import Volume
from m2unet.ct.write import write_mask, write_volume
from m2unet.errors import M2UNetError, ScanError
from m2unet.files import write_json

Status = Literal["imported", "left out", "failed"]

SCHEMA = "m2unet.import-item/1"
LOBE_ML = 1.0
"""A lobe counts as shown from this volume on; smaller specks are slips of a mask."""


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes:
        scan_id: which.
        status: ``imported``, ``left out`` by a rule, or ``failed`` by a fault.
        reason: why it is not imported, None if it is.
        remarks: what the user should know of an imported scan.
        image, lobes, lesions: files for the manifest, None where there is none.
    """

    scan_id: str
    status: Status
    reason: str | None = None
    remarks: tuple[str, ...] = ()
    image: str | None = None
    lobes: str | None = None
    lesions: str | None = None


@dataclass(frozen=True)
class Job:
    """One scan to settle.

    Attributes:
        item: the scan.
        folder: where converted files and states are kept.
        check: also read scans from which nothing is converted.
        min_lobes: fewest lobes a scan with lobes must show.
        window_hu: the window of 8-bit volumes that are to be mapped back to HU, None to refuse them.
    """

    item: Item
    folder: Path
    check: bool = True
    min_lobes: int = 5
    window_hu: tuple[float, float] | None = None


class _LeftOutError(Exception):
    """The scan does not suit, by a rule that is no fault of the data."""


def settle(job: Job) -> Outcome:
    """Settle one scan, or take up what an earlier call made of it. Never raises for a bad scan."""
    item, state = job.item, job.folder / "state" / f"{job.item.scan_id}.json"
    try:
        key = _fingerprint(job)
    except OSError as error:
        return Outcome(item.scan_id, "failed", f"its files cannot be looked at: {error.strerror}")
    finished = _finished(state, key)
    if finished is not None:
        return finished
    try:
        outcome = _settle(job)
    except _LeftOutError as error:
        outcome = Outcome(item.scan_id, "left out", str(error))
    except M2UNetError as error:
        return Outcome(item.scan_id, "failed", str(error))  # not kept: its cause may lie outside its files
    except MemoryError:
        return Outcome(item.scan_id, "failed", "not enough memory")
    except Exception as error:  # one scan's surprise must not stop the others
        return Outcome(item.scan_id, "failed", f"unexpected {type(error).__name__}: {error}")
    write_json(state, {"schema": SCHEMA, "key": key, "outcome": asdict(outcome)})
    return outcome


def _fingerprint(job: Job) -> str:
    facts: list[object] = [repr(job.item), job.check, job.min_lobes, job.window_hu, CHECKS]
    for path in job.item.files():
        status = path.stat()
        facts.append([str(path), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _finished(state: Path, key: str) -> Outcome | None:
    try:
        held = json.loads(state.read_text(encoding="utf-8"))
        if held["schema"] != SCHEMA or held["key"] != key:
            return None
        outcome = Outcome(**{**held["outcome"], "remarks": tuple(held["outcome"]["remarks"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    made = [Path(path) for path in (outcome.image, outcome.lobes, outcome.lesions) if path is not None]
    return outcome if all(path.exists() for path in made) else None


def _settle(job: Job) -> Outcome:
    item = job.item
    if not job.check and item.lobes is None and job.window_hu is None:
        return _imported(item, item.remarks)
    image, loaded, remarks = _image(job)
    if loaded.volume is None:
        raise ScanError("The scan cannot be read", found=_said(loaded, "error"), mend=_mends(loaded))
    lobes = _lobes(job, loaded.volume) if item.lobes is not None else None
    if any(found.level == "error" for found in loaded.findings):
        raise ScanError("The scan cannot be used", found=_said(loaded, "error"), mend=_mends(loaded))
    remarks += [f"{found.code}: {found.found}" for found in loaded.findings if found.level == "warning"]
    item, lesion_remarks = _with_lesions(item, loaded.volume)
    if lobes is None:
        return _imported(item, (*item.remarks, *remarks, *lesion_remarks), image=image)
    path = job.folder / "masks" / f"{item.scan_id}.nii.gz"
    write_mask(loaded.volume, lobes[0], path)
    return _imported(item, (*item.remarks, *remarks, *lobes[1], *lesion_remarks), image=image, lobes=path)


def _imported(item: Item, remarks: tuple[str, ...], *, image: Path | None = None, lobes: Path | None = None) -> Outcome:
    return Outcome(
        item.scan_id,
        "imported",
        None,
        remarks,
        str(image or item.image),
        None if lobes is None else str(lobes),
        None if item.lesions is None else str(item.lesions),
    )


# --- the image -------------------------------------------------------------------------------------------------------


def _image(job: Job) -> tuple[Path, Loaded, list[str]]:
    """The image to use, read: as published, or mapped back to HU beside the manifest."""
    loaded = load(job.item.image)
    if job.window_hu is None or loaded.volume is None:
        return job.item.image, loaded, []
    if not any(found.code == "eight-bit" for found in loaded.findings):
        return job.item.image, loaded, []
    low, high = job.window_hu
    hu = np.rint(loaded.volume.array.astype(np.float32) / 255 * (high - low) + low).astype(np.int16)
    path = job.folder / "images" / f"{job.item.scan_id}.nii.gz"
    write_volume(replace(loaded.volume, array=hu), path)
    said = f"8-bit volume mapped from 0-255 back to [{low:g}, {high:g}] HU, in steps of {(high - low) / 255:.1f} HU"
    return path, load(path), [said]


def _said(loaded: Loaded, level: str) -> str:
    return "; ".join(f"{found.code}: {found.found}" for found in loaded.findings if found.level == level)


def _mends(loaded: Loaded) -> str:
    return "; ".join(found.mend for found in loaded.findings if found.level == "error")


# --- its masks -------------------------------------------------------------------------------------------------------


def _lobes(job: Job, volume: Volume) -> tuple[NDArray[np.uint8], list[str]]:
    source = job.item.lobes
    assert source is not None
    try:
        mask, remarks = _coded(source, volume) if isinstance(source, CodedMask) else _merged(source, volume)
    except NoLobesError:
        if job.min_lobes:
            raise _LeftOutError("it shows no lobe: not a chest") from None
        return np.zeros(volume.shape, dtype=np.uint8), ["it shows no lobe"]
    shown = [
        lobe.abbreviation for lobe in LOBES if np.count_nonzero(mask.array == lobe.code) * volume.voxel_ml >= LOBE_ML
    ]
    if not shown and job.min_lobes:
        raise _LeftOutError("it shows no lobe: not a chest")
    if len(shown) < job.min_lobes:
        raise _LeftOutError(f"it shows {len(shown)} of 5 lobes: {', '.join(shown)}")
    if len(shown) < len(LOBES):
        remarks.append(f"shows {len(shown)} of 5 lobes: {', '.join(shown)}")
    remarks += [finding.found for finding in mask.findings if finding.code != "mask-missing"]
    return mask.array, remarks


def _coded(source: CodedMask, volume: Volume) -> tuple[LobeMask, list[str]]:
    remarks: list[str] = []
    if source.codes == "luna16":
        raw = read_mask(source.path, volume)
        stray = {value: int(np.count_nonzero(raw == value)) for value in (1, 513)}
        meaning = {1: "background", 513: "airway"}
        remarks += [
            f"stray code {value} in {count} voxels, taken as {meaning[value]}"
            for value, count in stray.items()
            if count
        ]
    return read_lobes(source.path, volume, source.codes), remarks


def _merged(source: BinaryMasks, volume: Volume) -> tuple[LobeMask, list[str]]:
    return read_lobe_files(source.parts, volume, source.parts[0][0].parent.name), []


def _with_lesions(item: Item, volume: Volume) -> tuple[Item, list[str]]:
    """The item without its lesion mask if that cannot be used, and what is to be said of it."""
    if item.lesions is None:
        return item, []
    try:
        mask = read_mask(item.lesions, volume)
    except ScanError as error:
        return replace(item, lesions=None), [f"imported without lesions: {error}"]
    values = np.unique(mask)
    if not mask.any():
        return item, ["its lesion mask is empty"]
    return item, [f"its lesion mask holds the values {values.tolist()[:8]}"] if len(values) > 2 else []
