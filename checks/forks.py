"""Runs on small embedded data in forks of one process, which saves starting Python for each."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import lightning  # noqa: F401  # imported once for all forks
import torch

import fss.cli.evaluations  # noqa: F401

ROOT = Path(__file__).parent.parent
RUN = Path("outputs/shapes/pfenet-svf-efficientnet_lite0/1shot/fold0/seed0")
SETTINGS = [
    "logger=none",
    "pictures=1",
    "dataset.size=64",
    "dataset.train_reader.images=96",
    "dataset.eval_reader.images=64",
    "episodes=8",
    "dataset.epochs=2",
    "dataset.num_workers=2",
    "method.head.width=16",
    "presence_episodes=0",
]


def start(
    folder: Path,
    *overrides: str,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
    script: str = "train.py",
    small: bool = True,
) -> int:
    """Starts a script in a folder and writes its output to log.txt there.

    Args:
        folder: Working directory of the script.
        overrides: Settings on the command line.
        environment: Environment variables to set.
        before: Function to call first in the new process.
        script: train.py or evaluate.py.
        small: Prepend `SETTINGS` and use a single thread.

    Returns:
        The process id.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment or {})
        if small:
            torch.set_num_threads(1)
        if before:
            before()
        sys.argv = [script, *(SETTINGS if small else []), *overrides]
        runpy.run_path(str(ROOT / script), run_name="__main__")
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(child: int) -> int:
    """Waits for a run; returns its exit code, or the negative number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
