"""The prepared scans a training reads: made once, reused by every run with the same preparation."""

from __future__ import annotations

from pathlib import Path

from m2unet.anatomy import CodeSystem
from m2unet.cohort.manifest import Manifest
from m2unet.cohort.prepare import ScanOutcome, prepare_cohort
from m2unet.cohort.store import Store
from m2unet.config import Config
from m2unet.errors import StoreError
from m2unet.training.distributed import World
from m2unet.workflows.progress import NoProgress, Progress


def prepared_store(
    cohort: Manifest,
    folder: Path,
    config: Config,
    *,
    world: World | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    lobe_codes: CodeSystem | None = None,
) -> Store:
    """Prepare whatever is missing and open the store.

    Args:
        cohort: the scans.
        folder: of the store.
        config: for its ``prepare`` section.
        world: with several processes the first prepares while the others wait.
        workers: processes that prepare.
        progress: where to show progress.
        lobe_codes: whose codes the lobe masks use; None means those the store was begun with, recognised mask by mask
            in a new one.

    Raises:
        StoreError: if a scan could not be prepared, naming all that failed and why.
    """
    world = world or World()
    shown: Progress = progress or NoProgress()
    if world.main:
        with shown.stage("preparing scans") as step:

            def show(outcome: ScanOutcome, done: int, total: int) -> None:
                step(done, total, "" if outcome.reason is None else f"{outcome.scan_id} {outcome.status}")

            report = prepare_cohort(
                cohort, folder, config.prepare, workers=workers, progress=show, lobe_codes=lobe_codes
            )
        if report.failed:
            raise StoreError(
                f"{len(report.failed)} of {len(cohort.rows)} scans could not be prepared",
                found="\n  " + "\n  ".join(f"{scan_id}: {reason}" for scan_id, reason in report.failed.items()),
                mend="mend these scans, or take their rows out of the manifest",
            )
    world.barrier()
    return Store(folder, cohort.rows)
