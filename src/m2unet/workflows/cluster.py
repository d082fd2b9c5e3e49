"""Predict a cohort on many machines by Dask (extra ``cluster``): each worker loads the model once.

Cases are independent and their results are files, so the cluster carries no data: a task names a scan and says what
became of it. Scans, model and results lie on a file system that all machines share. A task that runs twice, because its
worker was lost, finds the finished case and skips it, or writes the same files again, each of them whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from m2unet.ct.patient import PatientWords
from m2unet.errors import ConfigError
from m2unet.files import require_writable
from m2unet.inference.predictor import find_model
from m2unet.workflows.case import CaseOptions
from m2unet.workflows.case_names import NEUTRAL, UNEXPECTED, without_names
from m2unet.workflows.collect import CohortFolder
from m2unet.workflows.methods import load_method
from m2unet.workflows.predict import Case, CaseOutcome, predict_case
from m2unet.workflows.progress import NoProgress, Progress
from m2unet.workflows.scoring import AnyPredictor


@dataclass(frozen=True)
class ClusterJob:
    """What is predicted, where, and with what.

    Attributes:
        model: run folder of the model, as the workers see it.
        out: folder of the results, as the workers see it.
        address: a Dask scheduler, e.g. ``tcp://head:8786``, or ``slurm``.
        workers: how many workers to ask SLURM for.
        engine: see :data:`m2unet.inference.engine.ENGINES`.
        options: what is written for each case.
    """

    model: Path
    out: Path
    address: str
    workers: int = 1
    engine: str = "auto"
    options: CaseOptions = field(default_factory=CaseOptions)


def predict_on_cluster(
    job: ClusterJob, cases: Sequence[Case], *, progress: Progress | None = None
) -> Iterator[CaseOutcome]:
    """Predict cases on a cluster, yielding each as it is done, in whatever order.

    The table and the page of all cases in ``job.out`` are written anew after each.

    Raises:
        OutputError: the folder of the results cannot be written.
        ConfigError: the extra is missing, or the scheduler cannot be reached.
        ModelError: there is no model.
    """
    find_model(job.model)
    require_writable(job.out)
    table = CohortFolder(job.out, page=job.options.report)
    table.check()
    shown: Progress = progress or NoProgress()
    with _client(job) as client, shown.stage("predicting") as step:
        from distributed import as_completed

        given = {
            client.submit(_task, job, _absolute(case), key=f"m2unet-{number}", pure=False): case
            for number, case in enumerate(cases)
        }
        for number, future in enumerate(as_completed(list(given)), 1):
            outcome = _outcome(future, given[future], job.out)
            table.update()
            yield outcome
            step(number, len(cases))


def _absolute(case: Case) -> Case:
    mask = None if case.mask is None else case.mask.absolute()
    return replace(case, path=case.path.absolute(), mask=mask)


def _task(job: ClusterJob, case: Case) -> CaseOutcome:
    """Runs on a worker."""
    return predict_case(_predictor(str(job.model), job.engine), case, job.out, job.options)


@lru_cache(maxsize=1)
def _predictor(model: str, engine: str) -> AnyPredictor:
    """The model, loaded once in each worker process."""
    from m2unet.training.distributed import choose_device

    return load_method(model, device=str(choose_device("auto")), engine=engine)


def _outcome(future: Any, case: Case, out: Path) -> CaseOutcome:
    try:
        found: CaseOutcome = future.result()
    except Exception as error:  # whatever a worker died of: the others go on
        text = f"{UNEXPECTED}end of the worker: {type(error).__name__}: {error}"
        message = without_names(text, [case.path], PatientWords())
        return CaseOutcome(case, out / (case.name or NEUTRAL), None, error=message)
    return found


@contextlib.contextmanager
def _client(job: ClusterJob) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError("Dask is not installed", mend="pip install 'm2unet[cluster]'") from None
    if job.address == "slurm":
        with _slurm(job.workers) as cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(job.address, timeout="20s")
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigError(
            "The Dask scheduler cannot be reached",
            found=f"{job.address}: {error}",
            expected="an address like tcp://head:8786, or slurm",
            mend="start one with `dask scheduler`, and workers with `dask worker ADDRESS`",
        ) from None
    with client:
        yield client


def _slurm(workers: int) -> Any:
    """A cluster of SLURM jobs as ``jobqueue.yaml`` of Dask's configuration describes them (cores, memory, queue)."""
    try:
        import dask
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise ConfigError("dask-jobqueue is not installed", mend="pip install 'm2unet[cluster]'") from None
    # Dask's pages show what runs and have no password; by default every machine of the network could open them.
    options = {"dashboard_address": "127.0.0.1:8787", **(dask.config.get("jobqueue.slurm.scheduler-options") or {})}
    worker = ["--dashboard-address", "127.0.0.1:0", *(dask.config.get("jobqueue.slurm.worker-extra-args") or [])]
    try:
        cluster = SLURMCluster(scheduler_options=options, worker_extra_args=worker)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            "The SLURM cluster is not described",
            found=str(error).strip().splitlines()[0],
            mend="set jobqueue.slurm.cores and .memory in ~/.config/dask/jobqueue.yaml",
        ) from None
    cluster.scale(jobs=workers)
    return cluster
