"""Compares training runs that are killed at chosen moments and resumed with an undisturbed run.

    python -m checks.resume [MOMENT ...] [SETTING=VALUE ...]     # all moments: two minutes on two CPU cores

Every run is a fork of this process, which saves starting Python; a run is killed from inside, at exactly the
moment that its name says, and then resumed to its end. Weights, optimiser and scores must be bitwise identical.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import fss.training.callbacks.checkpoints
from checks.forks import RUN, start, wait
from fss.evaluation.engine import Evaluation
from fss.training.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from fss.training.meta_learner import MetaLearner

SETTINGS = [
    "trainer=cpu",
    "batch_size=4",
    "dataset.train_episodes=24",  # six steps per epoch
    "dataset.val_episodes=20",  # three batches
    "tuning.schedule=cosine",  # and dropout as published, so that random numbers matter
]


def at(owner: Any, name: str, call: int, act: Callable[[], None]) -> None:
    """Calls `act` just before call number `call` (from 1) of a method."""
    original = getattr(owner, name)
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            act()
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tell(number: signal.Signals) -> Callable[[], None]:
    """Sends a signal to the run and its loader processes, as clusters do."""
    return lambda: os.killpg(0, number)


class Moment(NamedTuple):
    """The moment at which a run is stopped.

    Attributes:
        where: Arguments of `at`: the method, the number of the call, and what happens then.
        step: Step of the checkpoint that the run leaves; None if it leaves none.
        code: Exit code of the run.
        minutes: Setting `save_minutes`, the time between checkpoints within an epoch.
    """

    where: tuple[Any, str, int, Callable[[], None]]
    step: int | None
    code: int = -9
    minutes: str = "0"


TOLD = 75  # the exit code that clusters know as "try again later"
TERM, USR1 = tell(signal.SIGTERM), tell(signal.SIGUSR1)
# The first validation step is Lightning's sanity check; an epoch has six training steps.
MOMENTS = {
    "begin": Moment((MetaLearner, "on_validation_start", 1, kill), None),
    "step": Moment((MetaLearner, "training_step", 4, kill), 3),
    "second-epoch": Moment((MetaLearner, "training_step", 9, kill), 8),
    "only-epochs": Moment((MetaLearner, "training_step", 9, kill), 6, minutes="null"),
    "writing": Moment((fss.training.callbacks.checkpoints.os, "fsync", 3, kill), 2),
    "writing-epoch": Moment((fss.training.callbacks.checkpoints.os, "fsync", 7, kill), 6),
    "validation": Moment((MetaLearner, "validation_step", 3, kill), 6),
    "best-before": Moment((BestCheckpoint, "on_train_epoch_end", 1, kill), 6),
    "best-written": Moment((LastCheckpoint, "on_train_epoch_end", 1, kill), 6),
    "evaluation": Moment((Evaluation, "test_step", 3, kill), 12),
    "term": Moment((MetaLearner, "training_step", 3, TERM), 3, TOLD, "null"),
    "term-last-step": Moment((MetaLearner, "training_step", 6, TERM), 6, TOLD, "null"),
    "term-validation": Moment((MetaLearner, "validation_step", 3, TERM), 6, TOLD, "null"),
    "usr1": Moment((MetaLearner, "training_step", 8, USR1), 8, TOLD, "null"),
}


def run(folder: Path, *overrides: str, moment: Moment | None = None) -> int:
    """Trains and returns the exit code."""
    before = (lambda: at(*moment.where)) if moment else None
    return wait(start(folder, *SETTINGS, *overrides, before=before))


def reached(folder: Path) -> int | None:
    """The step of a run's last checkpoint."""
    path = folder / RUN / "checkpoints/last.ckpt"
    return load(path)["global_step"] if path.is_file() else None


def load(path: Path) -> dict[str, Any]:
    """Loads a checkpoint."""
    return torch.load(path, weights_only=True)


def outcome(folder: Path) -> dict[str, Any]:
    """Everything in a run that must be the same."""
    content, best = (load(folder / RUN / f"checkpoints/{name}.ckpt") for name in ("last", "best"))
    metrics = json.loads(next((folder / RUN).rglob("metrics.json")).read_text())
    momenta: dict[int, dict[str, Any]] = content["optimizer_states"][0]["state"]
    states = {f"optimizer.{k}.{n}": v for k, s in momenta.items() for n, v in s.items()}
    return {
        **content["state_dict"],
        **states,
        "schedule": json.dumps(content["lr_schedulers"]),
        "steps": [content["global_step"], best["global_step"]],
        "best": [float(v["best_model_score"]) for k, v in content["callbacks"].items() if "BestCheckpoint" in k],
        "classes": json.dumps(metrics["seeds"]),
    }


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of the entries that differ."""
    same = {k: torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a if k in b}
    return sorted((a.keys() ^ b.keys()) | {name for name, equal in same.items() if not equal})


def main() -> int:
    """Runs the moments named on the command line; returns 1 if any result is not as expected."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("moments", nargs="*", metavar="MOMENT", help=f"one of {', '.join(MOMENTS)}; default: all")
    given = parser.parse_args().moments
    settings = [word for word in given if "=" in word]
    names = [word for word in given if "=" not in word] or list(MOMENTS)
    if unknown := set(names) - set(MOMENTS):
        parser.error(f"no moment {', '.join(sorted(unknown))}")
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        undisturbed = Path(place) / "undisturbed"
        undisturbed.mkdir()
        if run(undisturbed, *settings):
            print((undisturbed / "log.txt").read_text())
            return 1
        expected = outcome(undisturbed)
        for name in names:
            folder, moment, began = Path(place) / name, MOMENTS[name], time.monotonic()
            folder.mkdir()
            overrides = (f"save_minutes={moment.minutes}", "resume=true", *settings)
            code = run(folder, *overrides, moment=moment)
            step = reached(folder)
            again = run(folder, *overrides)
            wrong = [f"exit code {again}"] if again else differences(expected, outcome(folder))
            if (code, step) != (moment.code, moment.step):
                wrong.append(f"expected exit {moment.code}, step {moment.step}")
            wrong += [str(path) for path in folder.rglob("*.part")]
            verdict = f"DIFFERS: {', '.join(wrong)}" if wrong else "the same bits"
            seconds = time.monotonic() - began
            print(f"{name:<16} exit {code:>3}, step {step!s:>4}: {verdict} ({seconds:.0f} s)", flush=True)
            if wrong:
                failed += 1
                print((folder / "log.txt").read_text()[-6000:])
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
