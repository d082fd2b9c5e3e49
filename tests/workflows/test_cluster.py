"""Prediction on a cluster: two real worker processes, one killed in mid-run."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk

from m2unet.cohort.manifest import Manifest
from m2unet.errors import ConfigError, OutputError
from m2unet.inference.predictor import Predictor
from m2unet.report.result import ResultDocument
from m2unet.workflows.case import CaseOptions
from m2unet.workflows.cluster import ClusterJob, predict_on_cluster
from m2unet.workflows.predict import Case, find_cases, predict_cases
from m2unet.workflows.run_folder import RunFolder

PLAIN = CaseOptions(montage=False, report=False)


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def address_of(scheduler: subprocess.Popen[str]) -> str:
    assert scheduler.stderr is not None
    for line in scheduler.stderr:
        found = re.search(r"Scheduler at:\s+(tcp://\S+)", line)
        if found:
            return found.group(1)
    raise AssertionError("the scheduler did not start")


def test_a_killed_worker_costs_no_result(run: RunFolder, cohort: Manifest, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    cases = [Case(f"{row.scan_id}_{copy}", row.image) for copy in range(2) for row in cohort.rows[:5]]
    local = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--no-dashboard")
    scheduler = ("distributed.cli.dask_scheduler", *local)
    with process(*scheduler) as head:
        address = address_of(head)
        local = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--no-dashboard")
        worker = ("distributed.cli.dask_worker", address, *local, "--no-nanny", "--nthreads", "1")
        with process(*worker) as first, process(*worker):
            job = ClusterJob(run.path, tmp_path / "many", address, engine="reference", options=PLAIN)
            outcomes = predict_on_cluster(job, cases)
            done = [next(outcomes)]
            os.kill(first.pid, signal.SIGKILL)
            done += list(outcomes)
    assert first.returncode == -signal.SIGKILL
    assert sorted(outcome.name for outcome in done) == sorted(str(case.name) for case in cases)
    assert not [outcome.error for outcome in done if outcome.error]
    alone = list(predict_cases(Predictor.load(run.path), cases, tmp_path / "one", PLAIN))
    for outcome in alone:
        other = tmp_path / "many" / outcome.name
        kept = ResultDocument.model_validate_json((other / "result.json").read_text())
        assert outcome.result is not None
        assert kept.severity == outcome.result.severity
        assert kept.lobes == outcome.result.lobes
        for mask in ("lobes", "opacity"):
            one, many = (
                sitk.GetArrayFromImage(sitk.ReadImage(str(folder / outcome.result.files[mask])))
                for folder in (outcome.folder, other)
            )
            np.testing.assert_array_equal(one, many)
        assert not list(other.glob(".*tmp*"))


def test_a_scheduler_that_is_not_there_is_named(run: RunFolder, cohort: Manifest, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    job = ClusterJob(run.path, tmp_path, "nonsense://nowhere")
    with pytest.raises(ConfigError, match="scheduler"):
        list(predict_on_cluster(job, find_cases([cohort.rows[0].image])))


SBATCH = """#!/bin/sh
cp "$1" {folder}/job.sh
HOME={home} setsid sh {folder}/job.sh > {folder}/worker.log 2>&1 &
echo $! > {folder}/worker.pid
echo "Submitted batch job 1"
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A SLURM of this machine alone that starts what it is given at once, with an empty home; gives that home."""
    dask = pytest.importorskip("dask")
    pytest.importorskip("dask_jobqueue")
    folder, home = tmp_path / "slurm", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    for name, text in (("sbatch", SBATCH.format(home=home, folder=folder)), ("scancel", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):
        monkeypatch.delenv(name, raising=False)
    local = {"scheduler-options": {"host": "127.0.0.1"}, "worker-extra-args": ["--host", "127.0.0.1"]}
    described = {"cores": 1, "memory": "4GB", **local}
    with dask.config.set({f"jobqueue.slurm.{name}": value for name, value in described.items()}):
        yield home
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int((folder / "worker.pid").read_text()), signal.SIGTERM)


@pytest.mark.timeout(180)  # without a worker the case would wait in the queue
@pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")
def test_slurm_starts_workers_that_report_nothing(
    run: RunFolder, cohort: Manifest, tmp_path: Path, slurm: Path
) -> None:
    job = ClusterJob(run.path, tmp_path / "out", "slurm", engine="openvino", options=PLAIN)
    outcomes = predict_on_cluster(job, find_cases([row.image for row in cohort.rows[:2]]))
    done = [next(outcomes)]
    listening = {item.laddr.ip for item in psutil.Process().net_connections("inet") if item.status == "LISTEN"}
    done += list(outcomes)
    assert [outcome.error for outcome in done] == [None, None]
    for outcome in done:
        assert outcome.result is not None and outcome.result.model.engine.startswith("openvino")
    assert listening == {"127.0.0.1"}  # neither the tasks nor Dask's page of them is open to the network
    assert list(slurm.rglob("*")) == []


def test_without_dask_the_extra_is_named(
    run: RunFolder, cohort: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"m2unet\[cluster\]"):
        list(predict_on_cluster(ClusterJob(run.path, tmp_path, "tcp://127.0.0.1:1"), []))
    assert time.monotonic() - started < 10


def test_the_table_of_a_cluster_s_results_is_whole(run: RunFolder, cohort: Manifest, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"nothing")
    cases = [Case(row.scan_id, row.image) for row in cohort.rows[:2]] + find_cases([bad])
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp://", host="127.0.0.1"
    ) as cluster:
        job = ClusterJob(run.path, tmp_path / "out", cluster.scheduler_address, engine="reference", options=PLAIN)
        outcomes = []
        for outcome in predict_on_cluster(job, cases):
            outcomes.append(outcome)
            names = [line.split(",")[0] for line in (tmp_path / "out" / "cohort.csv").read_text().splitlines()[1:]]
            assert {done.name for done in outcomes} <= set(names)
    assert sorted(outcome.error is None for outcome in outcomes) == [False, True, True]
    assert {outcome.name.rsplit("-", 1)[0] for outcome in outcomes if outcome.error} == {"bad"}


def test_a_folder_that_cannot_be_written_is_found_first(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    job = ClusterJob(run.path, tmp_path / "file", "nonsense://nowhere")
    with pytest.raises(OutputError, match="cannot be written"):
        list(predict_on_cluster(job, []))
