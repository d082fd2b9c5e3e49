"""Stopping on SIGINT or SIGTERM without losing work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from m2unet.errors import M2UNetError


class TrainingInterruptedError(M2UNetError):
    """Training was asked to stop; its state is saved.

    Args:
        folder: the run folder.
    """

    exit_code = 130

    def __init__(self, folder: Path) -> None:
        super().__init__("Training was interrupted and its state saved", mend=f"go on with --resume in {folder}")


class StopRequest:
    """Remembers that the user asked to stop; the second signal stops at once."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch SIGINT and SIGTERM meanwhile (only in the main thread, where Python allows it)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def remember(signum: int, frame: Any) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True

        previous = {name: signal.signal(name, remember) for name in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for name, handler in previous.items():
                signal.signal(name, handler)
