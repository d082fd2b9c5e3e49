"""A pytest plugin: a test that reaches for a network fails, and a child of a test likewise, even if it hides it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.guard import no_network

_SEEN = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Install the guard; each process of pytest-xdist has a file of its own beside the session's."""
    worker = getattr(config, "workerinput", None)
    if worker is None:
        log = Path(tempfile.mkdtemp(prefix="m2unet-network-")) / "main.log"
    else:
        log = Path(os.environ[no_network.LOG]).with_name(f"{worker['workerid']}.log")
    os.environ[no_network.LOG] = str(log)
    config.stash[_SEEN] = 0
    no_network.install()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Fail a test in which, or in whose fixtures, an attempt was recorded."""
    yield
    found = no_network.attempts(_log())
    new = found[item.config.stash[_SEEN] :]
    item.config.stash[_SEEN] = len(found)
    if new:
        pytest.fail("a network was asked for:\n" + "\n".join(new), pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session if anything was recorded, also after the last test."""
    if not hasattr(session.config, "workerinput") and _all() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was recorded."""
    found = _all()
    if found:
        terminalreporter.section("networks asked for", red=True)
        terminalreporter.write_line("\n".join(found))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the files."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(_log().parent, ignore_errors=True)


def _log() -> Path:
    return Path(os.environ[no_network.LOG])


def _all() -> list[str]:
    return [line for log in sorted(_log().parent.glob("*.log")) for line in no_network.attempts(log)]
