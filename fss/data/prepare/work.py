"""Many small files made by all cores, under a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fss.data.atomic import whole

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def progress(count: bool = False) -> Progress:
    """A bar; silent where nobody looks, as in a log file."""
    columns = [TextColumn("{task.description}"), BarColumn(), *([MofNCompleteColumn()] if count else [])]
    silent = not get_console().is_terminal
    return Progress(*columns, TimeRemainingColumn(), transient=True, disable=silent)


def for_each(function: Callable[[T], R], tasks: Sequence[T], workers: int, description: str) -> list[R]:
    """Results of the function for every task, in their order; the first error ends it.

    Args:
        function: At module level, since other processes run it.
        tasks: What it is called with.
        workers: Processes; 1 works in this one.
        description: Beside the bar.
    """
    with progress(count=True) as bar:
        if workers <= 1 or len(tasks) <= 1:
            return [function(task) for task in bar.track(tasks, description=description)]
        with ProcessPoolExecutor(min(workers, len(tasks))) as pool:
            chunk = max(1, min(64, len(tasks) // (4 * workers)))
            results = pool.map(function, tasks, chunksize=chunk)
            try:
                return list(bar.track(results, total=len(tasks), description=description))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # otherwise it would finish all tasks first
                raise


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Writes class ids (h, w) uint8 as a one-channel PNG."""
    with whole(path) as unfinished:
        Image.fromarray(mask).save(unfinished, "PNG")
