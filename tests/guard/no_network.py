"""Forbids every socket but loopback in this process, and writes each attempt to the file that ``LOG`` names.

An audit hook of the interpreter sees every connection, datagram, open port and name look-up that Python code asks for,
by whatever module, and cannot be removed again. Forked children inherit it; children that start a Python of their own
get it by ``sitecustomize.py`` beside this file, as long as ``PYTHONPATH`` begins with this folder. Sockets of compiled
code (torch.distributed, a browser) are out of its sight. Only the standard library is used: this runs before anything.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
LOG = "M2UNET_NETWORK_LOG"
"""The environment variable with the path of the file of attempts."""

_LOCAL_FAMILIES = {getattr(socket, name, None) for name in ("AF_UNIX", "AF_NETLINK")}
_ISOLATING = {"-I", "-E", "-S"}
_INSTALLED = "_m2unet_no_network"


class ForbiddenError(PermissionError):
    """An ``OSError``, so that what is tested meets a machine without a network."""


def install() -> None:
    """Guard this process from now on, and the children that it will start."""
    os.environ["PYTHONPATH"] = with_guard(os.environ.get("PYTHONPATH", ""))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # a proxy on loopback would lead outside
    if not hasattr(sys, _INSTALLED):
        setattr(sys, _INSTALLED, True)
        sys.addaudithook(_hook)


def with_guard(*paths: str) -> str:
    """A ``PYTHONPATH`` of these paths that also guards the child."""
    found = [path for entry in paths for path in entry.split(os.pathsep) if path and path != str(FOLDER)]
    return os.pathsep.join([str(FOLDER), *found])


def attempts(log: Path) -> list[str]:
    """What was recorded, one line an attempt."""
    return log.read_text(encoding="utf-8").splitlines() if log.is_file() else []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    check = _CHECKS.get(event)
    if check is None:
        return
    found = check(*arguments)
    if found is None:
        return
    text = f"{event} {found}"
    if LOG in os.environ:
        line = f"{text} [process {os.getpid()}: {_callers()}]\n".encode()
        handle = os.open(os.environ[LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, line)
        os.close(handle)
    raise ForbiddenError(f"forbidden in tests: {text}")


def _address(sock: Any, address: Any, *_: Any) -> str | None:
    if sock.family in _LOCAL_FAMILIES or address is None or _is_loopback(address[0]):
        return None
    return repr(address)


def _name(host: Any, *_: Any) -> str | None:
    name = host[0] if isinstance(host, tuple) else host
    if name in (None, "", b"") or _is_loopback(name) or os.fsdecode(name) == socket.gethostname():
        return None  # torchrun asks for the machine's own name
    return repr(host)


def _child(executable: Any, arguments: Any, environment: Any) -> str | None:
    """A program whose Python would start without the guard, or None."""
    words = [os.fsdecode(word) for word in ([arguments] if isinstance(arguments, str | bytes) else arguments)]
    path = (os.environ if environment is None else environment).get("PYTHONPATH", "")
    if os.fsdecode(path).split(os.pathsep)[0] != str(FOLDER):
        return f"{words}: PYTHONPATH must begin with {FOLDER}"
    python = Path(os.fsdecode(executable or words[0])).name.startswith("python")
    return f"{words}: isolated, so without the guard" if python and _ISOLATING & set(words[1:3]) else None


def _is_loopback(host: str | bytes) -> bool:
    name = os.fsdecode(host)
    if name == "localhost":
        return True
    try:
        found = ipaddress.ip_address(name)
    except ValueError:
        return False
    return found.is_loopback or bool(getattr(found, "ipv4_mapped", None) and found.ipv4_mapped.is_loopback)


def _callers() -> str:
    """Who asked: the innermost frames outside this file."""
    frame, found = sys._getframe(), []
    while frame is not None and len(found) < 12:
        if frame.f_code.co_filename != __file__:
            found.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(found)


_CHECKS = {
    "socket.connect": _address,
    "socket.sendto": _address,
    "socket.sendmsg": _address,
    "socket.bind": _address,
    "socket.getaddrinfo": _name,
    "socket.gethostbyname": _name,
    "socket.gethostbyaddr": _name,
    "socket.getnameinfo": _name,
    "subprocess.Popen": lambda program, words, folder, environment: _child(program, words, environment),
    "os.exec": _child,
    "os.posix_spawn": _child,
}
