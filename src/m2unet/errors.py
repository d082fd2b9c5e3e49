"""The exception tree and the exit codes of the command line.

Every error a user can cause says what was wrong, what was found, what was expected and how to mend it.
Exit codes: 0 all went well, 1 some cases failed, 2 bad input or bad use.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_BAD_INPUT = 2


class M2UNetError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        problem: what is wrong, one sentence without a full stop.
        found: what was found.
        expected: what was expected instead.
        mend: what the user can do about it.
    """

    exit_code: int = EXIT_BAD_INPUT

    def __init__(self, problem: str, *, found: object = None, expected: object = None, mend: str | None = None) -> None:
        self.problem = problem
        self.found = None if found is None else str(found)
        self.expected = None if expected is None else str(expected)
        self.mend = mend
        super().__init__(self._text())

    def _text(self) -> str:
        parts = [self.problem.rstrip(".") + "."]
        if self.found is not None:
            parts.append(f"Found: {self.found}.")
        if self.expected is not None:
            parts.append(f"Expected: {self.expected}.")
        if self.mend is not None:
            parts.append(f"To mend: {self.mend}.")
        return " ".join(parts)


class ScanError(M2UNetError):
    """A scan cannot be read, or its quality findings forbid its use."""


class ConfigError(M2UNetError):
    """A configuration file, preset or ``--set`` override is wrong."""


class ModelError(M2UNetError):
    """A model cannot be built, loaded or used as asked."""


class StoreError(M2UNetError):
    """The on-disk store of prepared scans is missing, incomplete or inconsistent."""


class OutputError(M2UNetError):
    """A file cannot be written."""


class MissingExtraError(M2UNetError):
    """An optional dependency is needed; the message names the pip extra."""


class WorkerError(M2UNetError):
    """Worker processes could not start, or one of them ended before its work was done."""


class RunError(M2UNetError):
    """A run folder is missing, incomplete, or made with another configuration."""


class ManifestError(M2UNetError):
    """A manifest has faults; all of them are listed at once.

    Args:
        problem: one sentence naming the manifest.
        faults: one line a fault, each with its row number.
    """

    def __init__(self, problem: str, faults: Sequence[str], *, mend: str | None = None) -> None:
        self.faults = tuple(faults)
        super().__init__(problem, found="\n  " + "\n  ".join(self.faults), mend=mend)
