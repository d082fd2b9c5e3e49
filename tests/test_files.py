"""Files written whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from m2unet.files import atomic_path, sweep

WRITER = """
import sys, time
from pathlib import Path
from m2unet.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="processes are asked for by signal")
def test_what_a_killed_writer_left_is_swept_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    command = [sys.executable, "-c", WRITER, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        sweep(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        writer.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.iterdir())) == 1
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_leftovers_of_other_machines_and_files_of_users_stay(tmp_path: Path) -> None:
    others = [tmp_path / ".999999999-00000000-12345678.tmp.lobes.nii.gz", tmp_path / ".notes.tmp.txt"]
    for path in others:
        path.write_text("kept")
    sweep(tmp_path)
    assert all(path.exists() for path in others)


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ValueError, match="half-way"), atomic_path(target) as temporary:
        temporary.write_text("new")
        raise ValueError("half-way")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
