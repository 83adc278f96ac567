"""The base learner as the first stage of a run that starts from it.

It is trained by a command of its own, `train.py method=base`, with a run folder of its own: so it can be resumed,
and is shared by every method, tuning and shot of its fold and seed. Where all processes of a job were started from
outside (torchrun, SLURM), each starts its part of the stage.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from fss.cli import overrides, start
from fss.cli.errors import environment
from fss.evaluation.results import TRAINING
from fss.processes.jobs import run_alone
from fss.training.callbacks.checkpoints import LAST

logger = logging.getLogger(__name__)

_CHECKOUT = Path(__file__).parents[2] / "train.py"
SCRIPT = _CHECKOUT if _CHECKOUT.is_file() else Path(sys.argv[0])  # of an installed package: fss-train
# Settings of the run that mean nothing to its base learner.
OTHERS = (
    *("method", "tuning", "shot", "start", "optimizer", "learner", "panels", "batch_size", "patience"),
    *("seed", "protocol", "episodes", "seeds", "pictures", "reuse", "run_dir", "run_group", "run_path", "resume"),
    "search",
)
SHARED = ("method.base_width",)  # a base learner is made to the measure of the head that takes it


def base_learner(cfg: DictConfig, typed: Sequence[str], first: bool = True) -> Path | None:
    """The checkpoint of the base learner that a run starts from, trained first where there is none.

    Args:
        cfg: Configuration of the run.
        typed: The overrides it was composed from.
        first: Whether this is the first of the run's processes, which alone prints.

    Returns:
        The checkpoint; None where the run starts from ImageNet weights.

    Raises:
        ValueError: `start` is unknown, or the method cannot start there.
        FileNotFoundError: There is no base learner, and it is not to be trained here.
        SystemExit: Its training ended otherwise than well, with its exit code.
    """
    if cfg.method.stage == "base_learner":
        return None
    if cfg.start not in ("imagenet", "base_learner"):
        raise ValueError(f"start={cfg.start}: must be imagenet or base_learner")
    if cfg.method.base_learner and cfg.start != "base_learner":
        raise ValueError(f"start={cfg.start}: method={cfg.method.name} needs a base learner, start=base_learner")
    if cfg.start == "imagenet":
        return None
    path = Path(cfg.method.base_checkpoint)
    named = bool(overrides.only(typed, "method.base_checkpoint"))
    if path.is_file() and (named or _is_finished(path)):
        if first:
            print(f"Starts from the base learner {path}, trained before")
        return path
    command = [*start.config_dir(), *stage_overrides(cfg, typed)]
    if named or not cfg.method.train_base:
        raise FileNotFoundError(
            f"no base learner {path}: train it first ({shlex.join(['python', 'train.py', *command])}) or name a "
            "file with method.base_checkpoint=FILE"
        )
    goes_on = (path.parent / LAST).is_file()
    command += ["resume=true"] * goes_on
    if first:
        _announce(cfg, path, command, goes_on)
    if code := run_alone([sys.executable, str(SCRIPT), *command], environment()):
        sys.exit(code if code > 0 else 128 - code)
    if not path.is_file():
        raise FileNotFoundError(f"the base learner's training left no {path}: see what it printed above")
    return path


def stage_overrides(cfg: DictConfig, typed: Sequence[str]) -> list[str]:
    """What is typed to train the base learner of a run, from what was typed for the run."""
    kept = [*overrides.without(typed, *OTHERS), *overrides.only(typed, *SHARED)]
    if overrides.only(typed, "dataset.epochs") and not overrides.only(typed, "dataset.base.epochs"):
        # a run made short for a try has a short first stage
        kept.append(f"dataset.base.epochs={min(cfg.dataset.base.epochs, cfg.dataset.epochs)}")
    return ["method=base", *kept, f"seed={cfg.method.base_seed}"]


def _is_finished(checkpoint: Path) -> bool:
    """Whether the training that wrote a checkpoint has ended; a checkpoint that stands alone was brought here."""
    folder = checkpoint.parent
    return (folder.parent / TRAINING).is_file() or not (folder / LAST).is_file()


def _announce(cfg: DictConfig, path: Path, command: Sequence[str], goes_on: bool) -> None:
    state = "whose training has not ended" if goes_on else "which is not there"
    less = "" if cfg.method.base_learner else "start=imagenet does without it; "
    print(
        f"{cfg.method.name} starts from the base learner {path}, {state}. It is trained first, for "
        f"{cfg.dataset.base.epochs} epochs of all training pictures unless set otherwise, and kept for other runs "
        f"of this fold ({less}method.base_checkpoint=FILE takes another, method.train_base=false stops here).\n"
        f"[1/2] {shlex.join(['python', 'train.py', *command])}",
        flush=True,
    )
