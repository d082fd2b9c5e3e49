"""Worker processes: started afresh, and truthfully explained where they do not start or do not live to the end."""

from __future__ import annotations

import multiprocessing
import re
import signal
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

from m2unet.errors import WorkerError

T = TypeVar("T")
R = TypeVar("R")

GUARD = 'if __name__ == "__main__":'
"""What the work of a script that starts processes has to stand below."""

UNGUARDED = 76
"""Exit code of a worker that would have started workers itself while it imported the script."""


class WorkerPool:
    """Processes that work beside this one; each is a fresh interpreter, which imports the main script once more.

    Args:
        count: how many.
        initializer: called once in each.
        initargs: its arguments.
    """

    def __init__(
        self, count: int, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()
    ) -> None:
        _refuse_in_a_starting_worker()
        context = multiprocessing.get_context("spawn")
        self._started = context.Event()
        self._others = set(multiprocessing.active_children())
        self._workers: set[multiprocessing.process.BaseProcess] = set()
        arguments = (self._started, initializer, initargs)
        self._executor = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=arguments)

    def submit(self, call: Callable[[T], R], tasks: Iterable[T]) -> list[Future[R]]:
        """One future a task, in order; ``call`` and the tasks are pickled."""
        futures = [self._executor.submit(call, task) for task in tasks]
        self._workers |= set(multiprocessing.active_children()) - self._others
        return futures

    def terminate(self) -> None:
        """Ask every worker to end now."""
        for worker in set(multiprocessing.active_children()) - self._others:
            worker.terminate()

    def close(self) -> None:
        """Drop what has not begun and wait for the rest; may be called twice."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def exit_code(self) -> int | None:
        """How the worker ended that broke the pool, as :attr:`multiprocessing.Process.exitcode`; None if not known.

        Raises:
            WorkerError: no worker got as far as its first task; the error says why.
        """
        self.close()
        codes = [worker.exitcode for worker in self._workers if worker.exitcode is not None]
        if not self._started.is_set():
            raise _not_started(codes)
        own = [code for code in codes if code not in (0, -signal.SIGTERM)]  # the others are ended by the pool
        return own[0] if own else None


def describe_exit(exit_code: int | None) -> str:
    """How a process ended, as a predicate: ``its process was killed ...``.

    Args:
        exit_code: as :meth:`WorkerPool.exit_code` gives it.
    """
    if exit_code is None or exit_code == -getattr(signal, "SIGKILL", 9):
        return "was killed, most likely for want of memory"
    if exit_code < 0:
        return f"crashed ({_signal_name(-exit_code)})"
    return f"ended by itself with exit code {exit_code}"


def named_exit_code(error: BaseException) -> int | None:
    """The exit code of a worker that joblib's error names; None if it names none."""
    found = re.search(r"exit codes? of the workers (?:is|are) \{.*?\((-?\d+)\)", str(error))
    return None if found is None else int(found.group(1))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _begin(started: Any, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    started.set()  # the main script was imported without a fault
    if initializer is not None:
        initializer(*initargs)


def _refuse_in_a_starting_worker() -> None:
    """End a worker that is still importing the main script: it must not start workers of its own, without end."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.stderr.write(f"m2unet: a worker process imports this script, whose work must stand below {GUARD}\n")
        raise SystemExit(UNGUARDED)


def _not_started(codes: list[int]) -> WorkerError:
    mend = f"put the script's work below `{GUARD}`, or use one process"
    if UNGUARDED in codes:
        return WorkerError(
            "The worker processes cannot start: each imports the running script, which would start workers again",
            found=f"a script without `{GUARD}` around its work",
            mend=mend,
        )
    known = sorted({describe_exit(code) for code in codes if code != -signal.SIGTERM})
    return WorkerError(
        "The worker processes cannot start: each ended while it imported the running script",
        found=f"a worker that {' / '.join(known)}; its own message stands above" if known else None,
        mend=mend,
    )
