"""Import a public data set: a manifest, its masks recoded beside it, and a report of all that was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from pathlib import Path

from m2unet.cohort.importers.items import DataSet, Fault, Found, ImportOptions, Item
from m2unet.cohort.importers.registry import DATA_SETS
from m2unet.cohort.importers.settle import Job, Outcome, settle
from m2unet.cohort.manifest import ManifestRow, write_manifest
from m2unet.errors import EXIT_OK, EXIT_SOME_FAILED, ConfigError, ManifestError, RunError
from m2unet.files import write_json
from m2unet.processes import WorkerPool, describe_exit

SCHEMA = "m2unet.import/1"

Progress = Callable[[Outcome, int, int], None]
"""Called with each outcome as it comes, the number of scans done, and the number in all."""


@dataclass(frozen=True)
class ImportReport:
    """What an import came to.

    Attributes:
        data_set: its name.
        rows: the manifest's.
        label: what severity means, None if the data set has none.
        faults: what is broken or missing, scans that failed among it.
        left_out: scans that do not suit, by a rule.
        remarks: oddities of imported scans, by scan.
    """

    data_set: str
    rows: tuple[ManifestRow, ...]
    label: str | None
    faults: tuple[Fault, ...]
    left_out: tuple[Fault, ...]
    remarks: Mapping[str, tuple[str, ...]]

    @property
    def exit_code(self) -> int:
        """0 if there was no fault, 1 otherwise."""
        return EXIT_SOME_FAILED if self.faults else EXIT_OK


def import_folder(out: Path) -> Path:
    """Where converted files lie: beside the manifest, under its name."""
    return out.with_name(f"{out.stem}_import")


def import_data_set(
    name: str,
    root: str | Path,
    out: str | Path,
    options: ImportOptions | None = None,
    *,
    check: bool = True,
    workers: int = 1,
    progress: Progress | None = None,
) -> ImportReport:
    """Import a data set. A bad scan is reported and stops no other; a second call does only what is missing.

    Args:
        name: a key of :data:`m2unet.cohort.importers.registry.DATA_SETS`.
        root: the unpacked data set. Nothing is written into it.
        out: the manifest to write; masks in our codes go to ``<stem>_import/masks`` beside it.
        options: choices; those that do not concern the data set must have their defaults.
        check: read every scan, so that what cannot be used is left out now; otherwise only what is converted.
        workers: processes; 1 works in this one.
        progress: told each outcome as it comes.

    Raises:
        ConfigError: no such data set, or an option that does not concern it.
        ManifestError: another layout, or no scan that can be imported.
        OutputError: the manifest cannot be written.
        RunError: a process was killed; what is finished is kept.
        WorkerError: the processes cannot start.
    """
    out, options = Path(out), options or ImportOptions()
    data_set = _data_set(name, options)
    found = data_set.find(Path(root), options)
    window = data_set.window_hu if options.rescale_8bit else None
    items, doubles = _named(found.items)
    jobs = [Job(item, import_folder(out), check, options.min_lobes, window) for item in items]
    outcomes: dict[str, Outcome] = {}
    for outcome in _run(jobs, workers):
        if data_set.window_hu is not None and window is None and "eight-bit" in (outcome.reason or ""):
            said = f"{outcome.reason} Or let --rescale-8bit map it back by its known window."
            outcome = replace(outcome, reason=said)  # noqa: PLW2901 - the same outcome, better told
        outcomes[outcome.scan_id] = outcome
        if progress is not None:
            progress(outcome, len(outcomes), len(jobs))
    report = _report(name, found, items, outcomes, doubles)
    if not report.rows:
        raise ManifestError(
            f"Nothing of {data_set.title} can be imported",
            [f"{fault.name}: {fault.reason}" for fault in (*report.faults, *report.left_out)] or ["no scan in it"],
        )
    write_manifest(report.rows, out)
    _write_report(report, import_folder(out) / "report.json")
    return report


def _data_set(name: str, options: ImportOptions) -> DataSet:
    if name not in DATA_SETS:
        raise ConfigError("There is no such data set", found=name, expected=f"one of {', '.join(DATA_SETS)}")
    for field in fields(ImportOptions):
        given = getattr(options, field.name)
        if given != field.default and field.name not in DATA_SETS[name].options:
            raise ConfigError(f"{field.name} does not concern {name}", found=given, mend="leave it out")
    return DATA_SETS[name]


def _named(items: Sequence[Item]) -> tuple[list[Item], list[Fault]]:
    """Items whose ids can name files, and faults where two ids would become one."""
    named: dict[str, Item] = {}
    faults = []
    for item in items:
        scan_id = re.sub(r"[^A-Za-z0-9._-]", "-", item.scan_id).lstrip("._-").rstrip(".")[:100]
        if scan_id.casefold() in named:
            faults.append(Fault(item.scan_id, f"another scan has the id {scan_id!r}, too"))
        elif not scan_id:
            faults.append(Fault(item.scan_id, "no letter or digit in its name"))
        else:
            named[scan_id.casefold()] = replace(item, scan_id=scan_id)
    return list(named.values()), faults


def _run(jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    if workers <= 1 or len(jobs) <= 1:
        yield from map(settle, jobs)
        return
    pool = WorkerPool(min(workers, len(jobs)))
    try:
        for future in as_completed(pool.submit(settle, jobs)):
            yield future.result()
        return
    except BrokenProcessPool:
        pass
    finally:
        pool.close()
    raise RunError(
        f"A process of the import {describe_exit(pool.exit_code())}",
        mend="run it again with fewer workers; what is finished is kept",
    )


def _report(
    name: str, found: Found, items: Sequence[Item], outcomes: Mapping[str, Outcome], doubles: Sequence[Fault]
) -> ImportReport:
    rows = []
    by_status: dict[str, list[Fault]] = {"failed": [], "left out": []}
    remarks: dict[str, tuple[str, ...]] = {}
    for item in items:
        outcome = outcomes[item.scan_id]
        if outcome.status != "imported":
            by_status[outcome.status].append(Fault(item.scan_id, outcome.reason or ""))
            continue
        rows.append(_row(item, outcome))
        if outcome.remarks:
            remarks[item.scan_id] = outcome.remarks
    faults = (*found.faults, *doubles, *by_status["failed"])
    return ImportReport(name, tuple(rows), found.label, faults, tuple(by_status["left out"]), remarks)


def _row(item: Item, outcome: Outcome) -> ManifestRow:
    def path(text: str | None) -> Path | None:
        return None if text is None else Path(text)

    return ManifestRow(
        scan_id=item.scan_id,
        patient_id=item.patient_id,
        image=path(outcome.image) or item.image,
        lobes=path(outcome.lobes),
        severity=item.severity,
        site=item.site,
        age=item.age,
        sex=item.sex,
        lesions=path(outcome.lesions),
    )


def _write_report(report: ImportReport, path: Path) -> None:
    def listed(faults: Sequence[Fault]) -> list[dict[str, str]]:
        return [{"name": fault.name, "reason": fault.reason} for fault in faults]

    write_json(
        path,
        {
            "schema": SCHEMA,
            "data_set": report.data_set,
            "label": report.label,
            "imported": len(report.rows),
            "faults": listed(report.faults),
            "left_out": listed(report.left_out),
            "remarks": {scan_id: list(said) for scan_id, said in report.remarks.items()},
        },
    )
