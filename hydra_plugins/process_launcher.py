"""A Hydra launcher that runs each job of a sweep as the command one would type for it.

`python train.py -m fold=0,1` runs `python train.py fold=0` and then `python train.py fold=1`, each as a process
in its own session. A job that fails, hangs or is killed therefore leaves nothing behind that affects the next one.
Under DDP, whose other ranks repeat the command line, they repeat the job and not the whole sweep.

Hydra only looks for launchers in the package `hydra_plugins`.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from rich.table import Table

from fss.cli.errors import environment
from fss.display.console import PlainConsole
from fss.processes.jobs import run_alone

# Hydra's own settings that belong to the sweep, not to a job
SWEEP_ONLY = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep.", "hydra.mode")


class JobFailedError(CompactHydraException):
    """An error of which Hydra prints only the message; the job itself has printed the rest."""


class Outcome(NamedTuple):
    """Outcome of a job: its return value or the reason of its failure, and its duration in seconds."""

    value: Any
    error: str | None
    seconds: float


class ResultFile(Callback):
    """Runs inside the job: writes its return value, or the error that ended it, for the launcher to read.

    Args:
        path: JSON file to write.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if os.environ.get("LOCAL_RANK", "0") != "0":  # another rank of the same job
            return
        value = job_return._return_value  # the property would raise the error again
        failed = isinstance(value, Exception)
        result = {"error": f"{type(value).__name__}: {value}"} if failed else {"value": value}
        self.path.write_text(json.dumps(result, default=str))


class ProcessLauncher(Launcher):
    """Runs jobs one after another and finally lists their outcomes. A failed job does not stop the others.

    An interrupt or a cluster's signal is passed on to the running job, which can then save a checkpoint; the sweep
    ends with that job's exit code.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        outcomes = []
        for number, overrides in enumerate(job_overrides, start=1):
            print(f"\n[{number}/{len(job_overrides)}] {self._typed(overrides)}", flush=True)
            outcomes.append(self._run(overrides))
        if len(job_overrides) > 1:
            PlainConsole(soft_wrap=True).print(_summary(job_overrides, outcomes))
        return [self._job_return(o, outcome) for o, outcome in zip(job_overrides, outcomes, strict=True)]

    def _run(self, overrides: Sequence[str]) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            began = time.monotonic()
            code = run_alone(self._command(overrides, result), environment())
            seconds = time.monotonic() - began
            told = json.loads(result.read_text()) if result.is_file() else {}
        if code == 0:
            return Outcome(told.get("value"), None, seconds)
        ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Outcome(None, told.get("error", ended), seconds)

    def _command(self, overrides: Sequence[str], result: Path) -> list[str]:
        hydra = self.config.hydra
        added = [s.path for s in hydra.runtime.config_sources if s.provider == "command-line"]
        target = f"{ResultFile.__module__}.{ResultFile.__name__}"
        return [
            sys.executable,
            sys.argv[0],
            f"--config-name={hydra.job.config_name}",
            *(f"--config-dir={path}" for path in added),
            *(o for o in hydra.overrides.hydra if not o.lstrip("+~").startswith(SWEEP_ONLY)),
            f"+hydra.callbacks.result={{_target_:{target},path:'{result}'}}",
            *overrides,
        ]

    @staticmethod
    def _typed(overrides: Sequence[str]) -> str:
        return shlex.join(["python", sys.argv[0], *overrides])

    def _job_return(self, overrides: Sequence[str], outcome: Outcome) -> JobReturn:
        failed = outcome.error is not None
        returned = JobReturn(
            overrides=overrides,
            working_dir=os.getcwd(),
            task_name=self.config.hydra.job.name,
            status=JobStatus.FAILED if failed else JobStatus.COMPLETED,
        )
        returned.return_value = JobFailedError(outcome.error) if failed else outcome.value
        return returned


def _summary(job_overrides: Sequence[Sequence[str]], outcomes: Sequence[Outcome]) -> Table:
    """Table with one row per job, named by the settings in which jobs differ."""
    shared = set(job_overrides[0]).intersection(*job_overrides[1:])
    failures = sum(outcome.error is not None for outcome in outcomes)
    title = f"\n{len(outcomes)} jobs, {failures} failed" if failures else f"\n{len(outcomes)} jobs"
    table = Table("job", "result", "time", title=title, title_justify="left")
    for overrides, outcome in zip(job_overrides, outcomes, strict=True):
        value = f"{outcome.value:.3f}" if isinstance(outcome.value, float) else str(outcome.value or "done")
        table.add_row(
            " ".join(o for o in overrides if o not in shared),
            value if outcome.error is None else f"failed: {outcome.error}",
            str(timedelta(seconds=round(outcome.seconds))),
        )
    return table
