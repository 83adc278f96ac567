"""The command lines that train and evaluate what a claim is of, and those that fill empty cells of the table."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from fss.report.claims import FOLDS, Claim
from fss.report.found import Found, Run
from fss.report.recipes import starts_from_base_learner
from fss.report.verify import Verdict

NOVEL_KEPT = "novel-kept"  # otherwise runs on the original data would overwrite those without novel pictures
WEIGHTS = "resnet50_v2.pth"  # ImageNet weights of a ResNet-50 with the published stem


class Place(NamedTuple):
    """Where command lines are typed: what they have in common.

    Attributes:
        outputs: Folder of the runs.
        seed: Training seed.
        weights: File with the published weights of a ResNet-50.
        more: Words that end every line.
        quote: Makes a value safe for the shell.
    """

    outputs: str = "outputs"
    seed: str = "0"
    weights: str = WEIGHTS
    more: str = ""
    quote: Callable[[str], str] = shlex.quote

    def line(self, script: str, claim: Claim, folds: str, settings: Iterable[str]) -> str:
        """A command line: settings of its own between those that all have."""
        typed = ["python", script, *(["-m"] if "," in folds else []), f"dataset={claim.dataset}"]
        typed += [f"backbone={claim.network}", *settings, f"fold={folds}"]
        if self.seed != "0":
            typed.append(f"seed={self.quote(self.seed)}")
        outputs = self.outputs if claim.exclude_novel else f"{self.outputs}/{NOVEL_KEPT}"
        if outputs != "outputs":
            typed.append(f"outputs={self.quote(outputs)}")
        return " ".join([*typed, *([self.more] if self.more else [])])

    def weights_of(self, claim: Claim) -> list[str]:
        """The setting that names the published weights, where they are a file."""
        return [f"backbone.weights={self.quote(self.weights)}"] if claim.network != claim.backbone else []


def base_learner_line(claim: Claim, folds: Iterable[int], place: Place, resume: bool = True) -> str:
    """Trains the base learners that a claim's runs start from."""
    return place.line(
        "train.py", claim, _folds(folds), [*place.weights_of(claim), "method=base", *_resume(resume)]
    )


def training_line(claim: Claim, folds: Iterable[int], place: Place, resume: bool = True) -> str:
    """Trains by the claim's recipe."""
    settings = [f"method={claim.method}", f"tuning={claim.tuning}", f"shot={claim.train_shot}"]
    settings += [f"recipe={claim.recipe}", *_resume(resume)]
    return place.line("train.py", claim, _folds(folds), [*place.weights_of(claim), *settings])


def evaluation_line(claim: Claim, folds: Iterable[int], place: Place) -> str:
    """Evaluates the best and the last checkpoints of trained runs by the claim's protocol."""
    settings = [f"method={claim.method}", f"tuning={claim.tuning}", f"shot={claim.shot}"]
    settings += [f"train_shot={claim.train_shot}"] if claim.train_shot != claim.shot else []
    settings += [f"recipe={claim.recipe}", "checkpoint=both", f"protocol={claim.source.protocol}"]
    chosen = set(folds)
    return place.line("evaluate.py", claim, "all" if len(chosen) == FOLDS else _folds(chosen), settings)


def commands(verdict: Verdict, found: Found) -> list[str]:
    """Commands to type, in order, for the missing folds of one training seed; empty if none is missing.

    The seed with the most results so far is used. Unfinished trainings are resumed; those with other settings are
    replaced.
    """
    claim = verdict.claim
    if verdict.judge is not None and verdict.judge.mean is not None:
        return []
    trained = {(run.config["fold"], run.config["seed"]) for run in verdict.runs if run.has_trained}
    began = {(run.config["fold"], run.config["seed"]) for run in verdict.runs}
    have = Counter(seed for _, seed in [*verdict.evaluated, *trained, *began])
    seed = min(have, key=lambda s: (-have[s], s)) if have else 0
    missing = {fold for fold in range(FOLDS) if (fold, seed) not in verdict.evaluated}
    to_train = {fold for fold in missing if (fold, seed) not in trained}
    outputs = _outputs(verdict, seed, found)
    place = Place(_shared(outputs, found), str(seed))
    lines = []
    if starts_from_base_learner(claim):
        bases = _base_learners(claim, outputs, found, seed)
        lines += _both(base_learner_line, claim, to_train - _ready(bases), set(bases), place)
    resumed = {fold for fold, of_seed in began if of_seed == seed}
    lines += _both(training_line, claim, to_train, resumed, place)
    return [*lines, evaluation_line(claim, missing, place)]


def _both(line: Callable[..., str], claim: Claim, folds: set[int], begun: set[int], place: Place) -> list[str]:
    """A line for the folds to begin and one for those to resume, where there are any."""
    parts = ((folds - begun, False), (folds & begun, True))
    return [line(claim, part, place, resume) for part, resume in parts if part]


def _outputs(verdict: Verdict, seed: int, found: Found) -> Path:
    """The folder that holds the claim's runs so far, otherwise that of the report."""
    for run in verdict.runs:
        if run.config["seed"] == seed and len(run.folder.parents) > 4:
            folder = run.folder.parents[4]
            return folder if verdict.claim.exclude_novel or folder.name != NOVEL_KEPT else folder.parent
    return found.folder


def _shared(outputs: Path, found: Found) -> str:
    """A folder of runs as a report names it, which is made to be shared: without the place where it is kept."""
    if not found.folder.is_absolute():
        return str(outputs)
    inside = outputs.relative_to(found.folder) if outputs.is_relative_to(found.folder) else Path()
    return str("DIR_OF_RUNS" / inside)


def _base_learners(claim: Claim, outputs: Path, found: Found, seed: int) -> dict[int, Run]:
    """Base learners of a claim's runs by fold, trained or begun without settings of their own."""
    folder = outputs / claim.dataset / f"base-{claim.network}"
    runs = {fold: found.runs.get(folder / f"fold{fold}" / f"seed{seed}") for fold in range(FOLDS)}
    return {fold: run for fold, run in runs.items() if run is not None and not run.own_settings}


def _ready(bases: dict[int, Run]) -> set[int]:
    return {fold for fold, run in bases.items() if run.has_trained}


def _folds(folds: Iterable[int]) -> str:
    return ",".join(map(str, sorted(folds)))


def _resume(resume: bool) -> list[str]:
    return ["resume=true"] if resume else []
