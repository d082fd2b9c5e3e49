"""Prepare a cohort: read each scan of a manifest, crop it to the body, put it into the store.

Finished scans are skipped on a second call, a bad scan never stops the others, and an interrupted one leaves nothing
half-written behind. A finished scan counts as current while name, size and modification time of its source files, the
meaning of its lobe codes, the checks of masks and the configuration are the same; file contents are not hashed for
this, because reading a cohort of hundreds of gigabytes to find nothing to do would take as long as preparing it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import CodeSystem
from m2unet.cohort.manifest import Manifest, ManifestRow
from m2unet.cohort.masks import CHECKS, read_lobes
from m2unet.cohort.store import ScanRecord, Store, content_hash
from m2unet.config import PrepareConfig
from m2unet.ct.findings import Finding
from m2unet.ct.identity import all_files, scan_files
from m2unet.ct.prepare import PreparedScan, prepare_volume
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_SOME_FAILED, M2UNetError
from m2unet.processes import WorkerPool, describe_exit

logger = logging.getLogger(__name__)

Status = Literal["prepared", "skipped", "failed"]
_HEADER_AND_DATA = (".mhd", ".nhdr", ".hdr", ".img")  # formats whose voxels lie in a file beside


@dataclass(frozen=True)
class ScanOutcome:
    """What became of one scan.

    Attributes:
        scan_id: which.
        status: ``prepared`` now, ``skipped`` because it was finished, or ``failed``.
        reason: why it failed, None otherwise.
        warnings: warning-level findings of a scan prepared now.
        seconds: time spent on it.
    """

    scan_id: str
    status: Status
    reason: str | None = None
    warnings: tuple[Finding, ...] = ()
    seconds: float = 0.0


Progress = Callable[[ScanOutcome, int, int], None]
"""Called with each outcome as it comes, the number of scans done, and the number in all."""


@dataclass(frozen=True)
class PrepareReport:
    """What became of a cohort.

    Attributes:
        outcomes: one a scan, in the manifest's order.
        duplicates: groups of scans whose prepared images are the same, voxel for voxel.
    """

    outcomes: tuple[ScanOutcome, ...]
    duplicates: tuple[tuple[str, ...], ...] = ()

    def _with(self, status: Status) -> tuple[str, ...]:
        return tuple(outcome.scan_id for outcome in self.outcomes if outcome.status == status)

    @property
    def prepared(self) -> tuple[str, ...]:
        """Scans prepared now."""
        return self._with("prepared")

    @property
    def skipped(self) -> tuple[str, ...]:
        """Scans that were finished already."""
        return self._with("skipped")

    @property
    def failed(self) -> dict[str, str]:
        """Reasons by scan."""
        return {o.scan_id: o.reason or "unknown reason" for o in self.outcomes if o.status == "failed"}

    @property
    def exit_code(self) -> int:
        """0 if all went well, 1 if some scans failed, 2 if all did."""
        if not self.failed:
            return EXIT_OK
        return EXIT_BAD_INPUT if len(self.failed) == len(self.outcomes) else EXIT_SOME_FAILED


@dataclass(frozen=True)
class _Job:
    row: ManifestRow
    folder: Path
    fingerprint: str


def prepare_cohort(
    manifest: Manifest,
    folder: str | Path,
    config: PrepareConfig,
    *,
    workers: int = 1,
    progress: Progress | None = None,
    lobe_codes: CodeSystem | None = None,
    redo: bool = False,
) -> PrepareReport:
    """Bring every scan of a manifest into a store.

    Args:
        manifest: the cohort.
        folder: the store; made if missing. One process at a time may prepare into it.
        config: body crop and resampling.
        workers: processes; 1 works in this one. A script that asks for more has its work below
            ``if __name__ == "__main__":``, since every process imports it.
        progress: told each outcome as it comes.
        lobe_codes: whose codes the lobe masks use; None means those the store was begun with; for a new one
            each mask's are recognised.
        redo: prepare finished scans again, and accept other settings than the store's.

    Raises:
        StoreError: if the folder holds scans prepared with other settings, or cannot be written.
        WorkerError: if the worker processes cannot start.
    """
    store = Store.create(folder, config, lobe_codes=lobe_codes, replace=redo)
    outcomes: dict[str, ScanOutcome] = {}

    def note(outcome: ScanOutcome) -> None:
        outcomes[outcome.scan_id] = outcome
        if progress is not None:
            progress(outcome, len(outcomes), len(manifest))

    jobs = []
    for row in manifest.rows:
        try:
            job = _Job(row, store.folder, source_fingerprint(row, store.lobe_codes))
        except OSError as error:
            note(ScanOutcome(row.scan_id, "failed", f"{error.strerror}: its files cannot be looked at"))
            continue
        if not redo and store.has(row.scan_id, job.fingerprint):
            store.clear_leftovers(row.scan_id)
            note(ScanOutcome(row.scan_id, "skipped"))
        else:
            jobs.append(job)
    for outcome in _run(jobs, workers):
        note(outcome)
    finished = [row.scan_id for row in manifest.rows if outcomes[row.scan_id].status != "failed"]
    return PrepareReport(tuple(outcomes[row.scan_id] for row in manifest.rows), find_duplicates(store, finished))


def source_fingerprint(row: ManifestRow, lobe_codes: CodeSystem = "auto") -> str:
    """Name, size and modification time of a scan's source files, hashed with the meaning of its lobe codes.

    Returns:
        64 hexadecimal digits; file names cannot be read back from them.

    Raises:
        OSError: if a file cannot be looked at.
    """
    facts: list[object] = [[lobe_codes, CHECKS] if row.lobes else None]
    if row.accept:
        facts.append(sorted(row.accept))
    for path in (row.image, row.lobes):
        facts.append(None if path is None else [_facts(member, path) for member in _members(path)])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def find_duplicates(store: Store, scan_ids: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Groups of two and more scans with the same stored image, which must not be parted between train and test."""
    groups: dict[str, list[str]] = {}
    for scan_id in scan_ids:
        groups.setdefault(store.record(scan_id).content_sha256, []).append(scan_id)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _members(path: Path) -> list[Path]:
    if path.is_dir():
        return scan_files(path) or all_files(path)
    if path.suffix.lower() in _HEADER_AND_DATA:
        return sorted(member for member in path.parent.glob("*") if member.stem == path.stem and member.is_file())
    return [path]


def _facts(member: Path, root: Path) -> list[object]:
    status = member.stat()
    name = member.relative_to(root).as_posix() if member != root and root.is_dir() else ""
    return [name, status.st_size, status.st_mtime_ns]


# --- one scan --------------------------------------------------------------------------------------------------------


def _prepare_scan(job: _Job) -> ScanOutcome:
    """Never raises for a bad scan: the reason travels back instead."""
    started = time.monotonic()
    scan_id = job.row.scan_id
    try:
        warnings = _prepare(job)
    except M2UNetError as error:
        return ScanOutcome(scan_id, "failed", str(error), seconds=time.monotonic() - started)
    except MemoryError:
        return ScanOutcome(scan_id, "failed", "not enough memory", seconds=time.monotonic() - started)
    except Exception as error:  # one scan's surprise must not stop the cohort
        reason = f"unexpected {type(error).__name__}: {error}"
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("%s failed: unexpected %s\n%s", scan_id, type(error).__name__, where)
        return ScanOutcome(scan_id, "failed", reason, seconds=time.monotonic() - started)
    return ScanOutcome(scan_id, "prepared", warnings=warnings, seconds=time.monotonic() - started)


def _prepare(job: _Job) -> tuple[Finding, ...]:
    store = Store(job.folder)
    volume = read_scan(job.row.image, accept=job.row.accept)
    scan = prepare_volume(volume, store.prepare)
    findings = list(volume.findings)
    lobes = None
    if job.row.lobes is not None:
        mask = read_lobes(job.row.lobes, volume, store.lobe_codes, undecided=True, accept=job.row.accept)
        lobes = scan.crop_mask(mask.array).astype(np.uint8, copy=False)
        findings += [*mask.findings, *_crop_findings(mask.array, volume, lobes, scan)]
    record = ScanRecord(
        fingerprint=job.fingerprint,
        content_sha256=content_hash(scan.array),
        shape=(scan.array.shape[0], scan.array.shape[1], scan.array.shape[2]),
        spacing_mm=scan.spacing_mm,
        references={name: None if box is None else np.asarray(box).tolist() for name, box in scan.references.items()},
        lobes=None if lobes is None else np.unique(lobes).tolist(),
        findings=tuple(findings),
        geometry={
            "shape": list(volume.shape),
            "spacing_mm": list(volume.spacing_mm),
            "origin_mm": list(volume.origin_mm),
            "direction": np.asarray(volume.direction).tolist(),
            "window": list(scan.window),
            "scale": list(scan.scale),
        },
        prepare=store.prepare,
    )
    store.write(job.row.scan_id, record, scan.array, lobes)
    return tuple(finding for finding in findings if finding.level == "warning")


def _crop_findings(
    mask: NDArray[np.uint8], volume: Volume, lobes: NDArray[np.uint8], scan: PreparedScan
) -> list[Finding]:
    """A crop that loses lobes means the body was not found right."""
    before = np.count_nonzero(mask) * volume.voxel_ml
    after = np.count_nonzero(lobes) * float(np.prod(scan.spacing_mm)) / 1000
    if after >= 0.98 * before:
        return []
    found = f"{100 * (1 - after / before):.0f} % of the lobe mask lies outside the body crop"
    return [
        Finding("lobes-cropped", "warning", found, "check the mask and the body threshold (prepare.body_threshold_hu)")
    ]


# --- several processes -----------------------------------------------------------------------------------------------


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[ScanOutcome]:
    if workers <= 1 or len(jobs) <= 1:
        yield from map(_prepare_scan, jobs)
        return
    left = {job.row.scan_id: job for job in jobs}
    for outcome in _pooled(jobs, min(workers, len(jobs))):
        del left[outcome.scan_id]
        yield outcome
    for job in left.values():  # a worker died; alone, the scan that killed it shows
        yield _alone(job)


def _alone(job: _Job) -> ScanOutcome:
    """The outcome of a scan in a process of its own."""
    outcomes = _pooled([job], 1)
    try:
        outcome = next(outcomes)
        outcomes.close()
    except StopIteration as stop:
        return ScanOutcome(job.row.scan_id, "failed", f"its process {describe_exit(stop.value)}")
    return outcome


def _pooled(jobs: Sequence[_Job], workers: int) -> Generator[ScanOutcome, None, int | None]:
    """Outcomes as they come; stops short where a worker process dies, and returns its exit code.

    Raises:
        WorkerError: if the worker processes cannot start.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = WorkerPool(workers, _limit_threads, (threads,))
    broken = False
    try:
        for future in as_completed(pool.submit(_prepare_scan, jobs)):
            yield future.result()
    except BrokenProcessPool:
        broken = True
    finally:
        pool.close()
    return pool.exit_code() if broken else None


def _limit_threads(threads: int) -> None:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
