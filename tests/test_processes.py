"""Worker processes that do not start, and those that do not live to the end: the true cause is given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from joblib import Parallel, delayed

from m2unet.cohort.manifest import ManifestRow, write_manifest
from m2unet.processes import WorkerPool, describe_exit, named_exit_code
from tests.cohort.conftest import chest, save
from tests.guard.no_network import with_guard

ROOT = Path(__file__).resolve().parents[1]

PREPARE = """
import sys
from m2unet.cohort.manifest import read_manifest
from m2unet.cohort.prepare import prepare_cohort
from m2unet.config import PrepareConfig
print("imported", flush=True)
{guard}
    report = prepare_cohort(read_manifest(sys.argv[1]), sys.argv[2], PrepareConfig(min_box=16), workers=2)
    print("prepared", len(report.prepared), "failed", len(report.failed))
"""

POOL = """
import sys
from m2unet.workflows.reproduce import _run
from tests.test_processes import Work
print([found for _, found in _run([Work(1), Work(2)], 2)])
"""


class Work:
    """A task of a reproduction."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> str:
        return f"done {self.number}"


def square(number: int) -> int:
    return number * number


def end(how: int) -> None:
    """End this process: by a signal if negative, else with an exit code."""
    if how < 0:
        os.kill(os.getpid(), -how)
    os._exit(how)


def called(folder: Path, text: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": with_guard(str(ROOT), str(ROOT / "src")), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(call, check=False, capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = []
    for number in range(2):
        save(chest(number)[0], tmp_path / f"{number}.nii")
        rows.append(ManifestRow(f"s{number}", f"p{number}", tmp_path / f"{number}.nii", severity=number))
    write_manifest(rows, tmp_path / "manifest.csv")
    return tmp_path / "manifest.csv"


def test_a_script_without_the_guard_is_named_as_the_cause(manifest: Path, tmp_path: Path) -> None:
    bare = called(tmp_path, PREPARE.format(guard="if True:"), manifest, tmp_path / "store")
    assert bare.returncode != 0 and 'if __name__ == "__main__":' in bare.stderr
    assert "cannot start" in bare.stderr and "memory" not in bare.stderr + bare.stdout
    assert "bootstrapping" not in bare.stderr, "one message says it"
    guarded = called(tmp_path, PREPARE.format(guard='if __name__ == "__main__":'), manifest, tmp_path / "store")
    assert guarded.returncode == 0, guarded.stderr
    assert "prepared 2 failed 0" in guarded.stdout


def test_trainings_in_processes_name_it_too(tmp_path: Path) -> None:
    bare = called(tmp_path, POOL)
    assert bare.returncode != 0 and "__main__" in bare.stderr and "memory" not in bare.stderr


def test_a_script_that_fails_when_it_is_imported_is_not_blamed_on_memory(manifest: Path, tmp_path: Path) -> None:
    broken = PREPARE.format(guard='if __name__ != "__main__": raise ValueError("unlucky")\nif True:')
    found = called(tmp_path, broken, manifest, tmp_path / "store")
    assert "WorkerError" in found.stderr and "exit code 1" in found.stderr and "unlucky" in found.stderr
    assert "memory" not in found.stderr


@pytest.mark.parametrize("how", [-signal.SIGKILL, -signal.SIGSEGV, 3])
def test_a_worker_that_dies_is_explained_by_how_it_ended(how: int) -> None:
    pool = WorkerPool(2)
    with pytest.raises(BrokenProcessPool):
        for future in as_completed(pool.submit(end, [how])):
            future.result()
    assert pool.exit_code() == how
    assert ("memory" in describe_exit(how)) == (how == -signal.SIGKILL)


def test_words_for_an_end() -> None:
    assert (
        describe_exit(-signal.SIGSEGV) == "crashed (SIGSEGV)" and describe_exit(3) == "ended by itself with exit code 3"
    )
    assert describe_exit(None) == describe_exit(-signal.SIGKILL) == "was killed, most likely for want of memory"


def test_a_pool_works_and_can_be_closed_twice() -> None:
    pool = WorkerPool(2)
    assert [future.result() for future in pool.submit(square, range(5))] == [0, 1, 4, 9, 16]
    pool.close()
    pool.close()


def test_the_exit_code_in_joblibs_error() -> None:
    with pytest.raises(BrokenProcessPool) as caught:
        list(Parallel(n_jobs=2)(delayed(end)(-signal.SIGKILL) for _ in range(2)))
    assert named_exit_code(caught.value) == -signal.SIGKILL
    assert named_exit_code(ValueError("else")) is None
