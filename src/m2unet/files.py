"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
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
    temporary = path.with_name(f".{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp.{path.name}")
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


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
