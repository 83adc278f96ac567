"""Applies a function to many items on several cores, with a progress bar."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fss.processes.orphans import end_with_parent

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def progress(count: bool = False) -> Progress:
    """A progress bar, disabled if the output is not a terminal (for example, a log file)."""
    columns = [TextColumn("{task.description}"), BarColumn(), *([MofNCompleteColumn()] if count else [])]
    silent = not get_console().is_terminal
    return Progress(*columns, TimeRemainingColumn(), transient=True, disable=silent)


def for_each(function: Callable[[T], R], tasks: Sequence[T], workers: int, description: str) -> list[R]:
    """Returns the function's result for every task, in order; stops at the first error.

    Args:
        function: Sent to each process once, so it must not be a lambda or a local function.
        tasks: The arguments with which it is called.
        workers: Number of processes; 1 runs in the calling process.
        description: Text shown beside the progress bar.
    """
    with progress(count=True) as bar:
        if workers <= 1 or len(tasks) <= 1:
            return [function(task) for task in bar.track(tasks, description=description)]
        workers = min(workers, len(tasks))
        with ProcessPoolExecutor(workers, initializer=_keep, initargs=(function,)) as pool:
            chunk = max(1, min(64, len(tasks) // (4 * workers)))
            try:
                results = pool.map(_call, tasks, chunksize=chunk)  # fails too, if a process has ended meanwhile
                return list(bar.track(results, total=len(tasks), description=description))
            except BrokenProcessPool as error:
                raise RuntimeError(
                    f"{description}: one of {workers} processes was ended from outside, as happens where memory "
                    "is short: lower the number of processes (--workers, where the command has it), or make room"
                ) from error
            except BaseException:
                pool.shutdown(cancel_futures=True)  # otherwise the pool would finish all tasks first
                raise


_kept: Callable[[Any], Any]


def _keep(function: Callable[[Any], Any]) -> None:
    global _kept
    _kept = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    end_with_parent()


def _call(task: Any) -> Any:
    return _kept(task)
