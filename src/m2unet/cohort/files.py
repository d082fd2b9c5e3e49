"""Text files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from m2unet.errors import StoreError


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name in the same folder, then rename it onto ``path``.

    Args:
        path: target; its folder is made if missing, an existing file is replaced.
        text: whole content.

    Raises:
        StoreError: if the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise StoreError("The file cannot be written", found=f"{path.name}: {error.strerror}") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise StoreError("The file cannot be written", found=f"{path.name}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
