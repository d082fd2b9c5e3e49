"""The guard against networks: what it must catch and let pass, and that a session with an attempt fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guard import no_network

ROOT = Path(__file__).resolve().parents[1]
SWALLOWED = """
def ask():
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    except Exception:
        pass
thread = threading.Thread(target=ask)
thread.start()
thread.join()
"""
FORBIDDEN = {
    "a connection": "socket.socket().connect(('192.0.2.1', 80))",
    "a connection without an exception": "socket.socket().connect_ex(('192.0.2.1', 80))",
    "IPv6": "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
    "a datagram": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
    "a port open to all": "socket.socket().bind(('0.0.0.0', 0))",
    "a look-up": "socket.getaddrinfo('example.org', 443)",
    "an old look-up": "socket.gethostbyname('example.org')",
    "a reverse look-up": "socket.gethostbyaddr('192.0.2.1')",
    "a URL": "urllib.request.urlopen('https://example.org')",
    "swallowed in a thread": SWALLOWED,
    "a forked child": "import multiprocessing\nmultiprocessing.get_context('fork').Process(target=ask).start()",
    "a spawned child": "import multiprocessing\nmultiprocessing.get_context('spawn').Process(target=ask).start()",
    "a child": "subprocess.run([sys.executable, '-c', 'import socket; socket.gethostbyname(\"example.org\")'])",
    "an unguarded child": "subprocess.run([sys.executable, '-c', ''], env={})",
    "an isolated child": "subprocess.run([sys.executable, '-I', '-c', ''])",
}
ALLOWED = """
import asyncio
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(("localhost", server.getsockname()[1]))
socket.socketpair()
socket.getaddrinfo(None, 80)
socket.gethostbyname(socket.gethostname())
asyncio.run(asyncio.sleep(0))
subprocess.run([sys.executable, "-c", "import no_network"], check=True)
subprocess.run(["true"], check=True)
"""
HEADER = "import socket, subprocess, sys, threading, urllib.request\n"


def attempts(code: str, folder: Path) -> list[str]:
    """What a guarded Python that runs the code records."""
    script, log = folder / "script.py", folder / "attempts.log"
    ask = "def ask():\n    socket.gethostbyname('example.org')\n"
    body = "\n".join(f"    {line}" for line in code.splitlines())
    script.write_text(f"{HEADER}{ask}if __name__ == '__main__':\n{body}\n", encoding="utf-8")
    subprocess.run(
        [sys.executable, script],
        env={**os.environ, no_network.LOG: str(log)},
        stderr=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    return no_network.attempts(log)


@pytest.mark.parametrize("code", FORBIDDEN.values(), ids=FORBIDDEN)
def test_an_attempt_is_recorded(code: str, tmp_path: Path) -> None:
    found = attempts(code, tmp_path)
    assert len(found) == 1, found


def test_what_stays_on_the_machine_passes(tmp_path: Path) -> None:
    assert attempts(ALLOWED, tmp_path) == []


def test_an_attempt_is_refused_as_on_a_machine_without_a_network() -> None:
    code = HEADER + "try:\n    ask = socket.gethostbyname('example.org')\nexcept OSError as error:\n    print(error)"
    environment = {name: value for name, value in os.environ.items() if name != no_network.LOG}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "forbidden in tests" in done.stdout and "example.org" in done.stdout


def test_a_proxy_on_this_machine_is_not_used(tmp_path: Path) -> None:
    code = HEADER + "print(urllib.request.getproxies_environment())"
    environment = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{}"


def test_the_environments_own_start_is_kept(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.stdout.write('started')\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": no_network.with_guard(str(tmp_path))}
    done = subprocess.run([sys.executable, "-c", ""], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "started"


SUITE = """
import pathlib, socket, subprocess, sys, threading, time
import pytest

@pytest.fixture(scope="module")
def asked():
    with pytest.raises(OSError):
        socket.gethostbyname("fixture.example.org")

def test_clean():
    pass

def test_swallowed():
    with pytest.raises(OSError):
        socket.gethostbyname("swallowed.example.org")

def test_child():
    subprocess.run([sys.executable, "-c", "import socket; socket.gethostbyname('child.example.org')"])

def test_fixture(asked):
    pass
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_suite_with_an_attempt_fails(workers: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": no_network.with_guard(str(ROOT), os.environ["PYTHONPATH"])}
    command = [sys.executable, "-m", "pytest", "-p", "tests.network", "-p", "no:cacheprovider", "-rA", *workers]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    for name in ("swallowed", "child", "fixture"):
        assert f"ERROR test_suite.py::test_{name}" in done.stdout
        assert f"{name}.example.org" in done.stdout.split("networks asked for")[1]
    assert "ERROR test_suite.py::test_clean" not in done.stdout


LATE = """
def pytest_sessionfinish(session):
    import socket
    try:
        socket.gethostbyname("late.example.org")
    except OSError:
        pass
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_an_attempt_after_the_last_test_fails_the_session(workers: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text("def test_clean():\n    pass\n", encoding="utf-8")
    (tmp_path / "conftest.py").write_text(LATE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": no_network.with_guard(str(ROOT), os.environ["PYTHONPATH"])}
    command = [sys.executable, "-m", "pytest", "-p", "tests.network", "-p", "no:cacheprovider", *workers]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "1 passed" in done.stdout and "late.example.org" in done.stdout
