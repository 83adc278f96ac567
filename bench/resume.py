"""Trainings that are killed at chosen moments and resumed, against one that nothing happened to.

python bench/resume.py                   # all moments, a few minutes on two CPU cores
python bench/resume.py writing validation

Every run is a fork of this process, which spares starting Python anew; a run is killed from inside, at exactly the
moment that its name says, and then resumed to its end. Weights, optimiser and scores have to come out bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fss.resume
from fss.meta_learner import MetaLearner
from fss.resume import STOPPED, BestCheckpoint, LastCheckpoint

ROOT = Path(__file__).parent.parent
RUN = Path("outputs/shapes/pfenet-svf-efficientnet_lite0/1shot/fold0/seed0")
SETTINGS = [
    "trainer=cpu",
    "logger=none",
    "batch_size=4",
    "pictures=1",
    "dataset.size=64",
    "dataset.train_reader.images=96",
    "dataset.eval_reader.images=64",
    "dataset.train_episodes=24",  # six steps an epoch
    "dataset.val_episodes=20",  # three batches
    "dataset.test_episodes=8",
    "dataset.epochs=2",
    "dataset.num_workers=2",
    "method.head.width=16",  # dropout stays as published, so chance plays its part
    "tuning.schedule=cosine",
]


def at(owner: Any, name: str, call: int, act: Callable[[], None]) -> None:
    """Acts when a method is called for the so-manyth time, before it does its work."""
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


class Moment:
    """When a run is stopped, with which exit code it ends, and how often it writes checkpoints."""

    def __init__(
        self, owner: Any, name: str, call: int, act: Callable[[], None], minutes: str = "0", code: int = -9
    ) -> None:
        self.where, self.minutes, self.code = (owner, name, call, act), minutes, code


# The first validation step is Lightning's trial run.
MOMENTS = {
    "begin": Moment(MetaLearner, "on_validation_start", 1, kill),
    "step": Moment(MetaLearner, "training_step", 4, kill),
    "second-epoch": Moment(MetaLearner, "training_step", 9, kill),
    "only-epochs": Moment(MetaLearner, "training_step", 9, kill, "null"),
    "writing": Moment(fss.resume.os, "fsync", 3, kill),
    "writing-epoch": Moment(fss.resume.os, "fsync", 7, kill),
    "validation": Moment(MetaLearner, "validation_step", 3, kill),
    "best-written": Moment(LastCheckpoint, "on_train_epoch_end", 1, kill),
    "best-before": Moment(BestCheckpoint, "on_train_epoch_end", 1, kill),
    "evaluation": Moment(MetaLearner, "test_step", 1, kill),
    "term": Moment(MetaLearner, "training_step", 3, tell(signal.SIGTERM), "null", STOPPED),
    "term-last-step": Moment(MetaLearner, "training_step", 6, tell(signal.SIGTERM), "null", STOPPED),
    "term-validation": Moment(MetaLearner, "validation_step", 3, tell(signal.SIGTERM), "null", STOPPED),
    "usr1": Moment(MetaLearner, "training_step", 8, tell(signal.SIGUSR1), "null", STOPPED),
}


def run(folder: Path, *overrides: str, moment: Moment | None = None) -> int:
    """Trains in a fork of this process; the exit code, or the negative number of the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            os.chdir(folder)
            log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if moment:
                at(*moment.where)
            sys.argv = ["train.py", *SETTINGS, *overrides]
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
            code = 0
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(folder: Path) -> dict[str, Any]:
    """Everything of a run that has to be the same."""
    content = torch.load(folder / RUN / "checkpoints/last.ckpt", weights_only=True)
    metrics = json.loads((folder / RUN / "metrics.json").read_text())
    states = {f"optimizer.{k}.{n}": v for k, s in _momenta(content).items() for n, v in s.items()}
    return {
        **content["state_dict"],
        **states,
        "schedule": json.dumps(content["lr_schedulers"]),
        "step": content["global_step"],
        "best": [float(v["best_model_score"]) for k, v in content["callbacks"].items() if "BestCheckpoint" in k],
        "classes": json.dumps(metrics["classes"]),
    }


def _momenta(content: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return content["optimizer_states"][0]["state"]


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of what differs."""
    same = {k: torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a if k in b}
    return sorted((a.keys() ^ b.keys()) | {name for name, equal in same.items() if not equal})


def main() -> int:
    """Runs the moments that are named on the command line; 1 if any came out otherwise than expected."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("moments", nargs="*", metavar="MOMENT", help=f"of {', '.join(MOMENTS)}; default: all")
    names = parser.parse_args().moments or list(MOMENTS)
    if unknown := set(names) - set(MOMENTS):
        parser.error(f"no moment {', '.join(sorted(unknown))}")
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        undisturbed = Path(place) / "undisturbed"
        undisturbed.mkdir()
        if run(undisturbed):
            print((undisturbed / "log.txt").read_text())
            return 1
        expected = outcome(undisturbed)
        for name in names:
            folder, moment, began = Path(place) / name, MOMENTS[name], time.monotonic()
            folder.mkdir()
            overrides = (f"save_minutes={moment.minutes}", "resume=true")
            codes = [run(folder, *overrides, moment=moment), run(folder, *overrides)]
            wrong = [f"exit codes {codes}"] if codes != [moment.code, 0] else differences(expected, outcome(folder))
            left = [str(path) for path in folder.rglob("*.part")]
            verdict = "the same bits" if not wrong and not left else f"DIFFERS: {wrong[:5]} {left}"
            print(f"{name:<16} exit {codes[0]:>3}  {verdict}  ({time.monotonic() - began:.0f} s)", flush=True)
            if wrong or left:
                failed += 1
                print((folder / "log.txt").read_text()[-6000:])
    return int(failed > 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
