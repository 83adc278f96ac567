"""Seconds and memory that a command takes before it does anything, and until its first training step.

    python -m bench.start [--repeats 3]

Each command runs in a process of its own; medians. Seconds by the clock mean something on a quiet machine only,
seconds of the processor on a busy one too. The first step is that of the embedded data: weights, episodes and a
validation batch come before it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "train.py --help": ["train.py", "--help"],
    "train.py --cfg job": ["train.py", "--cfg", "job"],
    "evaluate.py --help": ["evaluate.py", "--help"],
    "-m fss.data.check --help": ["-m", "fss.data.check", "--help"],
    "-m fss.data.prepare --help": ["-m", "fss.data.prepare", "--help"],
    "-m fss.report --help": ["-m", "fss.report", "--help"],
}


class Cost(NamedTuple):
    """What a process took: seconds by the clock, seconds of the processor, its largest memory in bytes."""

    clock: float
    processor: float
    memory: float


def first_step() -> Any:
    """Makes a logger that ends the process at the first logged loss; a run gets it by its configuration."""
    from lightning.pytorch.loggers import Logger

    class FirstStep(Logger):
        name, version = "first_step", 0

        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
            pass

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            if "train/loss" in metrics:
                os._exit(0)

    return FirstStep()


def cost(arguments: Sequence[str]) -> Cost:
    """Runs a command of this Python in the repository, to its end or to its first training step."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    clock = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(clock, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats: int = parser.parse_args().repeats
    table = Table("command", title="Start")
    for column in ("clock, s", "processor, s", "memory, MB"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        logger = f"+logger.first_step._target_={__spec__.name}.{first_step.__name__}"
        first = ["train.py", logger, "trainer.log_every_n_steps=1", f"outputs={folder}"]
        for label, arguments in {**COMMANDS, "train.py, to its first step": first}.items():
            costs = [cost(arguments) for _ in range(repeats)]
            clock, processor, memory = (statistics.median(values) for values in zip(*costs, strict=True))
            table.add_row(label, f"{clock:.1f}", f"{processor:.1f}", f"{memory / 1e6:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
