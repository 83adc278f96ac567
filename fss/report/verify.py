"""Compares claims with measurements: which evaluations belong to a claim, and whether they confirm it.

A claim's status is
    not run    nothing was found for it
    running    there is a checkpoint or an evaluation, but no training seed with all four folds yet
    verified   four folds, measured like the claim, and a mean within one point or two standard deviations over
               training seeds (whichever is larger) of the published one
    differs    the same, but with a mean further away

A claim's number is the best validation of a run of its recipe, on a backbone with the published weights, evaluated
by its protocol: only measurements of the same kind judge it. All others (the last checkpoint, other protocols and
their seeds, other recipes) are shown beside them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fss.evaluation.results import Spread, spread
from fss.evaluation.tables import changes
from fss.report.claims import FOLDS, Claim
from fss.report.found import Evaluation, Found, Run

Status = Literal["not run", "running", "verified", "differs"]
TOLERANCE = 1.0  # percentage points
_WEIGHTS = ("best", "last", "file")  # in the order in which they are shown


class Way(NamedTuple):
    """What evaluations must share to be folds and seeds of one measurement.

    Attributes:
        backbone: Name in the configuration; the one with the published stem ends in `_deep`.
        weights: "best", "last", or "file" for checkpoint files.
        selection: How the weights were selected: "none" or "novel classes".
        protocol: Name of the evaluation protocol.
        episodes: Number of episodes for each evaluation seed.
        eval_seeds: Evaluation seeds.
        train_shot: Supports per training episode.
        recipe: Name of the recipe that training followed; None if it is not known.
        own_settings: Settings that differ from that recipe, those of the base learner included.
        place: Folder of the runs, relative to that of the report.
    """

    backbone: str
    weights: str
    selection: str
    protocol: str
    episodes: int
    eval_seeds: tuple[int, ...]
    train_shot: int
    recipe: str | None
    own_settings: tuple[str, ...]
    place: str


class Measured(NamedTuple):
    """A claim as measured in one way; mIoU in percent, over training seeds.

    Attributes:
        way: How it was measured.
        seeds: Number of training seeds: those with four folds or, if there are none, all.
        folds: mIoU of folds 0 to 3; None for a missing fold.
        mean: Spread over seeds of the mean of the four folds; None as long as no seed has all of them.
        difference: Difference from the published mean, in percentage points.
        status: Status according to this measurement alone; None if it does not count.
        does_not_count: Why it does not count; empty if it does.
    """

    way: Way
    seeds: int
    folds: list[Spread | None]
    mean: Spread | None
    difference: float | None
    status: Status | None
    does_not_count: str


class Verdict(NamedTuple):
    """A claim and everything known about it.

    Attributes:
        claim: The claim.
        status: See the module's docstring.
        measured: Measurements that count, in order of precedence, followed by those that do not.
        runs: Training runs that follow the claim's recipe on its backbone, finished or not.
        evaluated: Folds and training seeds covered by `measured[0]`, if it counts.
    """

    claim: Claim
    status: Status
    measured: list[Measured]
    runs: list[Run]
    evaluated: frozenset[tuple[int, int]]

    @property
    def judge(self) -> Measured | None:
        """The measurement that determines the status; None if none counts."""
        return self.measured[0] if self.measured and not self.measured[0].does_not_count else None

    @property
    def last(self) -> Measured | None:
        """What the last checkpoints of the judge's runs reach by the same protocol, if they were evaluated."""
        if self.judge is None:
            return None
        way = self.judge.way._replace(weights="last", selection="none")
        return next((m for m in self.measured if m.way == way), None)

    @property
    def begun(self) -> list[tuple[int, int]]:
        """Fold and seed of runs not covered by `judge`: in training, stopped, or not evaluated in the same way."""
        return sorted({(run.config["fold"], run.config["seed"]) for run in self.runs} - self.evaluated)


def verify(claims: Sequence[Claim], found: Found) -> list[Verdict]:
    """Returns the verdict on each claim, in order."""
    evaluations: dict[Any, list[Evaluation]] = defaultdict(list)
    for evaluation in found.evaluations:
        m = evaluation.metrics
        usual = m["eval_classes"] == "novel" and m["support_annotation"] == "mask" and not changes(m)
        if usual and m["train_dataset"] == m["dataset"]:
            evaluations[(*_row(m["config"]), m["shot"])].append(evaluation)
    runs: dict[Any, list[Run]] = defaultdict(list)
    for run in found.runs.values():
        if not _own_settings(run, found):
            key = (*_row(run.config), run.config["shot"], run.recipe, run.config["backbone"]["name"])
            runs[key].append(run)
    verdicts = []
    for claim in claims:
        row = (claim.dataset, claim.backbone, claim.method, claim.tuning, claim.exclude_novel)
        by_recipe = runs[(*row, claim.train_shot, claim.recipe, claim.network)]
        verdicts.append(_verdict(claim, found, evaluations[(*row, claim.shot)], by_recipe))
    return verdicts


def _row(config: dict[str, Any]) -> tuple[Any, ...]:
    """Identifies the row of the published tables that a configuration belongs to."""
    dataset, backbone, method = (config[group]["name"] for group in ("dataset", "backbone", "method"))
    tuning = config["tuning"]["name"] if "tuning" in config else None  # a base learner has none
    return dataset, backbone.removesuffix("_deep"), method, tuning, config["dataset"].get("exclude_novel")


def _verdict(claim: Claim, found: Found, evaluations: list[Evaluation], runs: list[Run]) -> Verdict:
    ways: dict[Way, list[Evaluation]] = defaultdict(list)
    for evaluation in evaluations:
        ways[_way(evaluation, found)].append(evaluation)
    measured = sorted(
        ((_measure(claim, way, members), members) for way, members in ways.items()),
        key=lambda pair: _rank(claim, pair[0]),
    )
    first = measured[0] if measured and not measured[0][0].does_not_count else None
    if first is not None:
        status: Status = first[0].status or "running"
        evaluated = frozenset(_fold_and_seed(first[1]))
    else:
        status, evaluated = "running" if runs else "not run", frozenset()
    return Verdict(claim, status, [m for m, _ in measured], runs, evaluated)


def _way(evaluation: Evaluation, found: Found) -> Way:
    m, run = evaluation.metrics, evaluation.run
    home = found.folder.resolve()
    place = run.outputs.relative_to(home) if run and run.outputs.is_relative_to(home) else Path()
    return Way(
        backbone=m["backbone"],
        weights=evaluation.weights,
        selection=m["selection"],
        protocol=m["protocol"],
        episodes=m["episodes"],
        eval_seeds=tuple(m["eval_seeds"]),
        train_shot=m["train_shot"],
        recipe=evaluation.recipe,
        own_settings=_own_settings(run, found) if run else evaluation.own_settings,
        place="" if place == Path() else str(place),
    )


def _own_settings(run: Run, found: Found) -> tuple[str, ...]:
    """What a run, or the base learner that it starts from, does differently from its recipe."""
    base = found.base_learner(run)
    return (*run.own_settings, *(f"base learner: {setting}" for setting in (base.own_settings if base else ())))


def _rank(claim: Claim, measured: Measured) -> tuple[Any, ...]:
    way = measured.way
    first = bool(measured.does_not_count), measured.mean is None, way.protocol != claim.source.protocol
    return *first, _WEIGHTS.index(way.weights), -measured.seeds, *map(str, way)


def _measure(claim: Claim, way: Way, evaluations: list[Evaluation]) -> Measured:
    values: dict[int, dict[int, float]] = defaultdict(dict)  # training seed -> fold -> mIoU in percent
    for (fold, seed), evaluation in _fold_and_seed(evaluations).items():
        values[seed][fold] = 100 * evaluation.metrics["miou"]
    complete = [folds for folds in values.values() if len(folds) == FOLDS]
    shown = complete or list(values.values())
    folds = [[of[fold] for of in shown if fold in of] for fold in range(FOLDS)]
    mean = spread([sum(of.values()) / FOLDS for of in complete]) if complete else None
    difference = mean.mean - claim.mean if mean else None
    reasons = _reasons(claim, way)
    return Measured(
        way=way,
        seeds=len(shown),
        folds=[spread(of) if of else None for of in folds],
        mean=mean,
        difference=difference,
        status=None if reasons else _judge(mean, difference),
        does_not_count="; ".join(reasons),
    )


def _reasons(claim: Claim, way: Way) -> list[str]:
    """Why a measurement is not like the claim's; empty if it is."""
    source, reasons = claim.source, []
    if way.backbone != claim.network:
        reasons.append(f"torchvision's stem and weights; published with those of {claim.network}")
    if way.weights == "file":
        reasons.append("checkpoint files, whose training is not known")
    elif way.weights != source.weights:
        reasons.append(f"{way.weights} checkpoint; published is the {source.weights} validation")
    if way.protocol != source.protocol:
        reasons.append(f"protocol {way.protocol}, not {source.protocol}")
    elif (way.episodes, way.eval_seeds) != (source.episodes or way.episodes, tuple(source.seeds)):
        seeds = ", ".join(map(str, way.eval_seeds))
        reasons.append(f"{way.episodes} episodes of seed {seeds}: not those of the published protocol")
    if way.train_shot != claim.train_shot:
        reasons.append(f"trained with {way.train_shot}-shot episodes, not {claim.train_shot}-shot")
    if way.weights != "file" and way.recipe != claim.recipe:
        trained = f"recipe {way.recipe}" if way.recipe else "trained before recipes were recorded"
        reasons.append(f"{trained}, not recipe {claim.recipe}")
    if way.own_settings:
        reasons.append("other settings than the recipe's")
    return reasons


def _judge(mean: Spread | None, difference: float | None) -> Status:
    if mean is None or difference is None:
        return "running"
    return "verified" if abs(difference) <= max(TOLERANCE, 2 * (mean.std or 0.0)) else "differs"


def _fold_and_seed(evaluations: Sequence[Evaluation]) -> dict[tuple[int, int], Evaluation]:
    """Evaluations by fold and training seed; checkpoint files, which have no seed, are numbered in each fold."""
    members: dict[tuple[int, int], Evaluation] = {}
    for evaluation in evaluations:
        fold, seed = evaluation.metrics["fold"], evaluation.metrics["seed"]
        if evaluation.weights == "file":
            seed = sum(other == fold for other, _ in members)
        members[fold, seed] = evaluation
    return members
