"""The record of a training: one row an epoch, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from m2unet.files import write_text

METRICS_FILE = "metrics.csv"


@dataclass(frozen=True)
class EpochRecord:
    """What is known of one finished epoch.

    Attributes:
        epoch: from 1.
        lr: learning rate of its last step.
        seconds: wall time of its training steps.
        loss, loss_severity, loss_lobes: means over its steps.
        validation: the validator's figures; empty in epochs without validation.
    """

    epoch: int
    lr: float
    seconds: float
    loss: float
    loss_severity: float
    loss_lobes: float
    validation: dict[str, float | None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """One flat row; validation figures are prefixed ``val_``."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "validation"}
        return row | {f"val_{name}": value for name, value in self.validation.items()}


def read_history(folder: Path) -> list[dict[str, float | None]]:
    """The rows of ``metrics.csv`` in a run folder; empty cells are None."""
    with (folder / METRICS_FILE).open(encoding="utf-8", newline="") as file:
        return [{name: float(cell) if cell else None for name, cell in row.items()} for row in csv.DictReader(file)]


class RunLog:
    """Writes the history of a run to ``metrics.csv`` and ``tensorboard/``.

    Args:
        folder: the run folder.
        active: False makes every call do nothing (processes other than the first).
    """

    def __init__(self, folder: Path, *, active: bool = True) -> None:
        self.folder = folder
        self.active = active
        self._writer: Any = None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write(self, history: Sequence[dict[str, Any]]) -> None:
        """Rewrite ``metrics.csv`` whole, atomically, and add the last row to TensorBoard."""
        if not self.active or not history:
            return
        columns = list(dict.fromkeys(name for row in history for name in row))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows({k: "" if v is None else v for k, v in row.items()} for row in history)
        write_text(self.folder / METRICS_FILE, text.getvalue())
        self._tensorboard(history[-1])

    def _tensorboard(self, row: dict[str, Any]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=row["epoch"])
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(name, value, row["epoch"])
