"""Progress bars on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from m2unet.workflows.progress import Stage


class TerminalProgress:
    """One bar a stage, on standard error; finished bars stay.

    Args:
        console: where to draw; standard error if None.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Draw one bar while the context is open."""
        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
        )
        # Lines of results printed meanwhile: above the bar on a terminal; into a file or a pipe as they are.
        above = sys.stdout.isatty()
        with Bars(*columns, console=self.console, refresh_per_second=4, redirect_stdout=above) as bars:
            task = bars.add_task(title, total=None, note="")

            def show(done: int, total: int, note: str = "") -> None:
                bars.update(task, completed=done, total=total, note=note)

            yield show
