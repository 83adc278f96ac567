"""Runs two ways of the same work in turns and tells their times, memory and ratio."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fss.revision import git_revision

# makes what is timed; each call does the work once and returns a number that both ways must agree on
Work = Callable[[], float]


@dataclass(frozen=True)
class Result:
    """One case, measured.

    Attributes:
        case: What is measured.
        ours, published: Seconds, each the median of its runs.
        ratios: ours / published of each pair of neighbouring runs.
        processor: The same of processor time, which a busy machine disturbs less; exact only with one thread.
        memory: Largest resident memory of the two processes, GiB, ours first.
        goal, memory_goal: Largest ratio of time and of memory that is wanted; None for none.
        apart: Largest relative difference of the two ways' numbers.
    """

    case: str
    ours: float
    published: float
    ratios: tuple[float, ...]
    processor: tuple[float, ...]
    memory: tuple[float, float]
    goal: float | None
    memory_goal: float | None
    apart: float

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def paired(
    case: str,
    ours: Callable[[], Work],
    published: Callable[[], Work],
    pairs: int,
    goal: float | None = None,
    memory_goal: float | None = None,
) -> Result:
    """Measures two ways in two processes that take turns, so that both meet the same machine.

    Args:
        case: Name of the case.
        ours, published: Make the work in their process; must be importable by name.
        pairs: Runs of each, after one to warm up.
        goal, memory_goal: See `Result`.
    """
    context = get_context("spawn")
    ends, processes = [], []
    for make in (ours, published):
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        process.start()
        theirs.close()  # so that the end of the process is seen
        ends.append(mine)
        processes.append(process)
    seconds: list[list[float]] = [[], []]
    processor: list[list[float]] = [[], []]
    apart = 0.0
    for turn in range(pairs + 1):
        numbers = []
        for i, end in enumerate(ends):
            end.send("run")
            number, waited, worked = end.recv()
            numbers.append(number)
            if turn > 0:
                seconds[i].append(waited)
                processor[i].append(worked)
        apart = max(apart, abs(numbers[0] - numbers[1]) / max(abs(numbers[1]), 1e-12))
    memory = []
    for end, process in zip(ends, processes, strict=True):
        end.send("end")
        memory.append(end.recv())
        process.join()
    ratios, worked_ratios = (tuple(a / b for a, b in zip(*of, strict=True)) for of in (seconds, processor))
    ours_median, published_median = (statistics.median(taken) for taken in seconds)
    peaks = (memory[0], memory[1])
    return Result(case, ours_median, published_median, ratios, worked_ratios, peaks, goal, memory_goal, apart)


def _serve(end: Connection, make: Callable[[], Work]) -> None:
    work = make()
    while end.recv() == "run":
        start, began = perf_counter(), process_time()
        number = work()
        end.send((number, perf_counter() - start, process_time() - began))
    end.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def machine() -> str:
    """Processor, threads, versions and how busy the machine is."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    load = os.getloadavg()[0]
    parts = (
        names[0] if names else platform.processor(),
        f"{os.cpu_count()} cores",
        f"{torch.get_num_threads()} threads",
        f"load {load:.1f}",
        f"Python {platform.python_version()}",
        f"torch {torch.__version__}",
        f"revision {git_revision()}",
    )
    return ", ".join(parts)


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.is_file() else []


def told(ratio: float, goal: float | None) -> str:
    """A ratio beside its goal."""
    if goal is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} ({'meets' if ratio <= goal else 'misses'} {goal:g})"


def show(results: Sequence[Result], title: str) -> None:
    """Prints one table of all cases with ratios ours / published, and the machine below it."""
    columns = (
        "case",
        "ours (s)",
        "published (s)",
        "time, ours / published",
        "least to most",
        "processor",
        "memory (GiB)",
        "memory",
    )
    table = Table(*columns, title=title, title_justify="left", caption=machine(), caption_justify="left")
    for r in results:
        table.add_row(
            r.case,
            f"{r.ours:.2f}",
            f"{r.published:.2f}",
            told(r.ratio, r.goal),
            f"{min(r.ratios):.2f} to {max(r.ratios):.2f}",
            f"{statistics.median(r.processor):.2f}",
            f"{r.memory[0]:.2f} / {r.memory[1]:.2f}",
            told(r.memory[0] / r.memory[1], r.memory_goal),
        )
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def write(results: Sequence[Result], file: Path) -> None:
    """Writes the results and the machine as JSON."""
    told_all: dict[str, Any] = {"machine": machine(), "results": [asdict(r) | {"ratio": r.ratio} for r in results]}
    file.write_text(json.dumps(told_all, indent=2) + "\n")
