"""Compares claims with measurements: which evaluations belong to a claim, and whether they confirm it.

A claim's status is
    not run    nothing was found for it
    running    there is a checkpoint or an evaluation, but no training seed with all four folds yet
    verified   four folds, with the claim's protocol and recipe, and a mean within one point or two standard
               deviations over training seeds (whichever is larger) of the published one
    differs    the same, but with a mean further away

It is judged by the weights after the last step if these have four folds; otherwise by "best", which papers report
and which is selected on the test classes. Other protocols and recipes are shown but do not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fss.evaluation.results import Spread, spread
from fss.report.claims import FOLDS, Claim
from fss.report.found import Evaluation, Found, Run

Status = Literal["not run", "running", "verified", "differs"]
TOLERANCE = 1.0  # percentage points
_WEIGHTS = ("last", "best", "file")  # in order of precedence


class Measured(NamedTuple):
    """A claim as measured in one way; mIoU in percent, over training seeds.

    Attributes:
        backbone: Name in the configuration; the one with the published stem ends in `_deep`.
        weights: "last", "best", or "file" for checkpoint files.
        selection: How the weights were selected: "none" or "novel classes".
        protocol: Name of the evaluation protocol.
        episodes: Number of episodes for each evaluation seed.
        eval_seeds: Number of evaluation seeds.
        train_shot: Supports per training episode.
        own_settings: Settings on the command line that differ from the published recipe.
        place: Folder of the runs, relative to that of the report.
        seeds: Number of training seeds: those with four folds or, if there are none, all.
        folds: mIoU of folds 0 to 3; None for a missing fold.
        mean: Spread over seeds of the mean of the four folds; None as long as no seed has all of them.
        difference: Difference from the published mean, in percentage points.
        status: Status according to this measurement alone; None if it does not count.
        does_not_count: Why it does not count; empty if it does.
    """

    backbone: str
    weights: str
    selection: str
    protocol: str
    episodes: int
    eval_seeds: int
    train_shot: int
    own_settings: tuple[str, ...]
    place: str
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
        runs: Training runs with the published recipe, finished or not.
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
    def begun(self) -> list[tuple[int, int]]:
        """Fold and seed of runs not covered by `judge`: in training, stopped, or not evaluated in the same way."""
        return sorted({(run.config["fold"], run.config["seed"]) for run in self.runs} - self.evaluated)


def verify(claims: Sequence[Claim], found: Found) -> list[Verdict]:
    """Returns the verdict on each claim, in order."""
    evaluations: dict[Any, list[Evaluation]] = defaultdict(list)
    for evaluation in found.evaluations:
        m = evaluation.metrics
        novel = m["eval_classes"] == "novel" and m["support_annotation"] == "mask"
        if novel and m["train_dataset"] == m["dataset"]:
            evaluations[(*_row(m["config"]), m["shot"])].append(evaluation)
    runs: dict[Any, list[Run]] = defaultdict(list)
    for run in found.runs.values():
        if not run.own_settings:
            runs[(*_row(run.config), run.config["shot"])].append(run)
    verdicts = []
    for claim in claims:
        row = (claim.dataset, claim.backbone, claim.method, claim.tuning, claim.exclude_novel)
        verdicts.append(_verdict(claim, found, evaluations[(*row, claim.shot)], runs[(*row, claim.train_shot)]))
    return verdicts


def _row(config: dict[str, Any]) -> tuple[Any, ...]:
    """Identifies the row of the published tables that a configuration belongs to."""
    dataset, backbone, method = (config[group]["name"] for group in ("dataset", "backbone", "method"))
    tuning = config["tuning"]["name"] if "tuning" in config else None  # a base learner has none
    return dataset, backbone.removesuffix("_deep"), method, tuning, config["dataset"].get("exclude_novel")


def _verdict(claim: Claim, found: Found, evaluations: list[Evaluation], runs: list[Run]) -> Verdict:
    ways: dict[tuple[Any, ...], list[Evaluation]] = defaultdict(list)
    for evaluation in evaluations:
        ways[_way(evaluation, found)].append(evaluation)
    measured = sorted(
        ((_measure(claim, way, members), members) for way, members in ways.items()),
        key=lambda pair: (bool(pair[0].does_not_count), pair[0].mean is None, *_rank(claim, pair[0])),
    )
    first = measured[0] if measured and not measured[0][0].does_not_count else None
    if first is not None:
        status: Status = first[0].status or "running"
        evaluated = frozenset(_fold_and_seed(first[1]))
    else:
        status, evaluated = "running" if runs else "not run", frozenset()
    return Verdict(claim, status, [m for m, _ in measured], runs, evaluated)


def _way(evaluation: Evaluation, found: Found) -> tuple[Any, ...]:
    """Key that evaluations must share to be folds and seeds of the same measurement."""
    m, run = evaluation.metrics, evaluation.run
    home = found.folder.resolve()
    place = run.outputs.relative_to(home) if run and run.outputs.is_relative_to(home) else Path()
    return (
        *(m["backbone"], evaluation.weights, m["selection"], m["protocol"], m["episodes"], tuple(m["eval_seeds"])),
        *(m["train_shot"], run.own_settings if run else (), "" if place == Path() else str(place)),
    )


def _rank(claim: Claim, measured: Measured) -> tuple[Any, ...]:
    protocols = [*claim.source.protocols, measured.protocol]
    told = _WEIGHTS.index(measured.weights), -measured.seeds, protocols.index(measured.protocol)
    way = (measured.backbone, measured.weights, measured.selection, measured.protocol, measured.episodes)
    training = (measured.eval_seeds, measured.train_shot, measured.own_settings, measured.place)
    return *told, *map(str, (*way, *training))


def _measure(claim: Claim, way: tuple[Any, ...], evaluations: list[Evaluation]) -> Measured:
    backbone, weights, selection, protocol, episodes, eval_seeds, train_shot, own_settings, place = way
    values: dict[int, dict[int, float]] = defaultdict(dict)  # training seed -> fold -> mIoU in percent
    for (fold, seed), evaluation in _fold_and_seed(evaluations).items():
        values[seed][fold] = 100 * evaluation.metrics["miou"]
    complete = [folds for folds in values.values() if len(folds) == FOLDS]
    shown = complete or list(values.values())
    folds = [[of[fold] for of in shown if fold in of] for fold in range(FOLDS)]
    mean = spread([sum(of.values()) / FOLDS for of in complete]) if complete else None
    reasons = []
    if protocol not in claim.source.protocols:
        reasons.append(f"protocol {protocol}, not {' or '.join(claim.source.protocols)}")
    if train_shot != claim.train_shot:
        reasons.append(f"trained with {train_shot}-shot episodes, not {claim.train_shot}-shot")
    if own_settings:
        reasons.append("other settings than the published recipe")
    difference = mean.mean - claim.mean if mean else None
    return Measured(
        backbone=backbone,
        weights=weights,
        selection=selection,
        protocol=protocol,
        episodes=episodes,
        eval_seeds=len(eval_seeds),
        train_shot=train_shot,
        own_settings=own_settings,
        place=place,
        seeds=len(shown),
        folds=[spread(of) if of else None for of in folds],
        mean=mean,
        difference=difference,
        status=None if reasons else _judge(mean, difference),
        does_not_count="; ".join(reasons),
    )


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
