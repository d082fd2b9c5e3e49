"""What a killed or interrupted training needs to go on as if nothing had happened."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from m2unet.errors import RunError
from m2unet.files import atomic_path

STATE_SCHEMA = "m2unet.training-state/1"
STATE_FILE = "state.pt"


@dataclass
class TrainingState:
    """Where training stands, after ``step`` steps of epoch ``epoch``.

    No random state is needed: every bag is drawn from a stream named by seed, epoch and scan.

    Attributes:
        epoch: epoch under way, from 0; equal to the number of epochs when finished.
        step: optimiser steps already taken in it.
        sums: running sums of this epoch's losses, for its record.
        history: one record for each finished epoch.
        best_score: best validation score so far, None before the first.
        best_epoch: epoch of that score.
        stale: validations since then.
        model: weights and running statistics.
        optimiser: the optimiser's state.
        average: exponential average of the weights, kept only with ``train.average``.
        best_model: weights at ``best_epoch``, kept only with early stopping.
        severity_weight: what the severity loss is multiplied by; None in a state of an earlier version.
        bags: bags of an epoch; None in a state of an earlier version.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_score: float | None = None
    best_epoch: int | None = None
    stale: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] | None = None
    best_model: dict[str, Any] | None = None
    severity_weight: float | None = None
    bags: int | None = None


def save_state(state: TrainingState, folder: Path) -> None:
    """Write the state atomically to ``folder/state.pt``."""
    content = io.BytesIO()  # written by Python, whose errors say what is wrong, a full disk for one
    torch.save({"schema": STATE_SCHEMA, **vars(state)}, content)
    with atomic_path(folder / STATE_FILE) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_state(folder: Path) -> TrainingState | None:
    """The state saved in ``folder``, or None if there is none.

    Raises:
        RunError: if the file cannot be read, or was written by another version of this format.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        schema = values.pop("schema")
        if schema != STATE_SCHEMA:
            raise RunError("The training state has another format", found=schema, expected=STATE_SCHEMA)
        return TrainingState(**values)
    except RunError:
        raise
    except Exception as error:
        raise RunError(
            "The training state cannot be read",
            found=type(error).__name__,
            mend=f"delete {path.name} in the run folder to train from the beginning",
        ) from None
