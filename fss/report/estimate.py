"""How long trainings will take, from the speed that runs on the same machine have logged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from fss.report.claims import Claim
from fss.report.curves import LOGS, read_logs
from fss.report.found import Found
from fss.report.recipes import Training, base_training, few_shot_training

SPEED = "train/episodes_per_second"  # of a base learner: pictures
Speeds = Mapping[tuple[str, ...], float]  # of (method, tuning, backbone, shot), or ("base", backbone)


def measured_speeds(folder: Path) -> dict[tuple[str, ...], float]:
    """Episodes (of a base learner: pictures) per second by kind of training, medians of what runs have logged.

    Runs need not be finished: a few dozen steps tell.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No run below it has logged its speed.
    """
    logged: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for run in Found(folder).runs.values():
        steps, values = read_logs(run.folder / LOGS).get(SPEED, ((), ()))
        later = [float(value) for value in values[len(steps) // 3 :] if value > 0]  # the first steps are slow
        c = run.config
        method, backbone = c["method"]["name"], c["backbone"]["name"]
        kind = (method, backbone) if method == "base" else (method, c["tuning"]["name"], backbone, str(c["shot"]))
        logged[kind] += later
    speeds = {kind: median(values) for kind, values in logged.items() if values}
    if not speeds:
        raise ValueError(f"no run below {folder} has logged {SPEED}: start a training there for some dozen steps")
    return speeds


def base_hours(claim: Claim, speeds: Speeds) -> list[float] | None:
    """Hours that the base learner of each fold takes; None if its speed was not measured."""
    speed = speeds.get(("base", claim.network))
    training = base_training(claim.dataset)
    return None if speed is None else _hours(training, speed, 0)


def training_hours(claim: Claim, speeds: Speeds) -> list[float] | None:
    """Hours that the training of each fold takes at most; None if its speed was not measured.

    Episodes of validations are counted like those of training, though they take less.
    """
    speed = speeds.get((claim.method, claim.tuning, claim.network, str(claim.train_shot)))
    training = few_shot_training(claim)
    return None if speed is None else _hours(training, speed, 1000 * training.validations)


def told(hours: list[float] | None) -> str:
    """Hours of four folds as the end of a comment; nothing if they are not known."""
    return "" if hours is None else f"; about {sum(hours):.0f} h, {max(hours):.0f} h for the longest fold"


def _hours(training: Training, speed: float, validated: int) -> list[float]:
    return [(steps * training.batch_size + validated) / speed / 3600 for steps in training.steps]
