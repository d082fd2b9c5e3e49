"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import socket
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from m2unet.errors import OutputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, with the same ending, that takes its place when the block succeeds.

    The folder is made if need be; after an error nothing is left behind and an old file stays as it was.

    Raises:
        OutputError: for whatever the operating system refuses.
    """
    # Unique among machines too: two that share a folder may run processes of one number.
    temporary = path.with_name(f".{owner_mark()}-{uuid.uuid4().hex[:8]}.tmp.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            "The file cannot be written",
            found=f"{path.name}: {error.strerror or error}",
            mend="free some space, or choose another folder",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Find out whether a folder can be made and written to, before any work is done; nothing is left there.

    Raises:
        OutputError: if it cannot.
    """
    made: list[Path] = []
    try:
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        for place in reversed(missing):
            with suppress(FileExistsError):  # another process was faster
                place.mkdir()
                made.insert(0, place)
        probe = folder / f".{owner_mark()}-{uuid.uuid4().hex[:8]}.tmp.probe"
        try:
            probe.write_bytes(b"m2unet")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            "The folder of the results cannot be written",
            found=f"{folder}: {error.strerror or error}",
            mend="choose another folder for --out, or allow writing there",
        ) from error
    finally:
        for place in made:  # those that are needed are made again when something is written
            with suppress(OSError):
                place.rmdir()


def sweep(folder: Path) -> None:
    """Remove what killed processes of this machine left in a folder when they were writing there."""
    for path in folder.glob(".*.tmp.*"):
        made = re.match(r"\.(\d+)-([0-9a-f]{8})-", path.name)
        if made and made[2] == _machine() and not _runs(int(made[1])):
            with suppress(OSError):
                path.unlink()


def owner_mark() -> str:
    """This process among those of all machines that share a folder."""
    return f"{os.getpid()}-{_machine()}"


def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _runs(process: int) -> bool:
    if os.name == "nt":  # there signal 0 would be no question; leftovers stay
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, as another user
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
