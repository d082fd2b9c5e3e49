"""How a long job tells its caller where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Stage(Protocol):
    """One stage under way."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` steps are finished; ``note`` is a short remark, without identifiers."""


class Progress(Protocol):
    """Where stages are shown: the command line draws bars, a script may ignore them."""

    def stage(self, title: str) -> AbstractContextManager[Stage]:
        """Open a stage; it is finished when the context closes."""


class NoProgress:
    """Shows nothing."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Open a stage that nobody sees."""

        def ignore(done: int, total: int, note: str = "") -> None:
            return

        yield ignore
