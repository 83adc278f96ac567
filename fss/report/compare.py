"""Compares two runs on the same episodes: the difference of their mIoU and its uncertainty.

The episodes are a sample, and both runs predict the same ones, so their difference is known more precisely than
either mIoU. A stratified paired bootstrap measures how precisely: within each class, episodes are resampled with
replacement, the same ones for both runs, and intersections and unions are summed again. The interval covers other
episodes of these classes; it is slightly too short if a class has only a dozen. It does not cover other training
seeds: compare several and see how the difference varies between them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from fss.evaluation.results import CONFIDENCE, METRICS, EpisodeResult, read_episodes, read_metrics
from fss.evaluation.tables import changes

RESAMPLES = 9999
_AT_ONCE = 4_000_000  # values processed at a time
_SAME = ("dataset", "fold", "shot", "eval_classes", "support_annotation", "protocol", "episodes", "eval_seeds")

_TOGETHER = ("dataset", "shot", "protocol", "selection", "eval_classes", "support_annotation")


class Pair(NamedTuple):
    """Two evaluations of the same episodes.

    Attributes:
        name: Path of both, relative to the compared folders.
        metrics: Metrics of A and B.
        episodes: Episodes of A and B, in the same order.
    """

    name: str
    metrics: tuple[dict[str, Any], dict[str, Any]]
    episodes: tuple[list[EpisodeResult], list[EpisodeResult]]


class Difference(NamedTuple):
    """B minus A, as fractions.

    Attributes:
        label: Name of a class, or "mIoU".
        a, b: The compared values.
        difference: b - a.
        interval: 95 % interval of the difference over episodes.
        better: Fraction of resamples in which B has the higher value; ties count half.
    """

    label: str
    a: float
    b: float
    difference: float
    interval: tuple[float, float]
    better: float


class Result(NamedTuple):
    """The comparison of one or several pairs.

    Attributes:
        miou: Difference in mIoU, averaged over folds, evaluation seeds, classes and training seeds.
        classes: Difference in IoU for each class.
        of_seed: B minus A for each training seed that has all folds.
        episodes: Number of different episodes.
        pairs: The compared pairs.
    """

    miou: Difference
    classes: list[Difference]
    of_seed: dict[int, float]
    episodes: int
    pairs: list[Pair]


def find_pairs(a: Path, b: Path) -> tuple[list[list[Pair]], list[str]]:
    """Finds evaluations with the same relative path below two folders, but for what they changed of their runs.

    Args:
        a: A results folder, a run, or any folder above them.
        b: A folder of the same kind.

    Returns:
        One list of pairs for each set that can be averaged (same data set, shot, protocol, selection of
        weights, classes, supports and changes), and the paths that only one folder has.

    Raises:
        FileNotFoundError: If a folder has no evaluation, or if there is no pair.
        ValueError: If the evaluations of a pair have different episodes.
    """
    found: list[dict[Path, dict[str, Any]]] = []
    for folder in (a, b):
        metrics = {path.parent.relative_to(folder): m for path, m in read_metrics(folder).items()}
        if not metrics:
            raise FileNotFoundError(f"no {METRICS} below {folder}: train or evaluate first (python evaluate.py)")
        found.append(metrics)
    places = _paired(*found)
    if not places:
        shown = [", ".join(sorted(map(str, metrics))[:4]) for metrics in found]
        raise FileNotFoundError(
            f"no evaluation has the same path in {a} ({shown[0]}) and {b} ({shown[1]}): give two results folders"
        )
    groups: dict[Any, list[Pair]] = defaultdict(list)
    for place, other in places:
        pair = _pair(a / place, b / other, (found[0][place], found[1][other]), str(place))
        groups[tuple((*(str(m[key]) for key in _TOGETHER), changes(m)) for m in pair.metrics)].append(pair)
    alone = [
        str(f / place)
        for f, metrics, paired in zip((a, b), found, zip(*places, strict=True), strict=True)
        for place in metrics.keys() - set(paired)
    ]
    return [groups[key] for key in sorted(groups)], sorted(alone)


def _paired(a: Mapping[Path, dict[str, Any]], b: Mapping[Path, dict[str, Any]]) -> list[tuple[Path, Path]]:
    """Which of A and of B to compare, sorted: equal paths, then those that only words of `changed` tell apart."""
    pairs = [(place, place) for place in a.keys() & b.keys()]
    mine, theirs = _alone(a, b), _alone(b, a)
    only = [place for place in mine.keys() & theirs.keys() if len(mine[place]) == len(theirs[place]) == 1]
    return sorted([*pairs, *((mine[place][0], theirs[place][0]) for place in only)])


def _alone(own: Mapping[Path, dict[str, Any]], other: Container[Path]) -> dict[Path, list[Path]]:
    """The paths that `other` lacks, by what each would be if nothing were changed."""
    found: dict[Path, list[Path]] = defaultdict(list)
    for place in (place for place in own if place not in other):
        words = "".join(f"-{word}" for word in own[place].get("changed", ()))
        found[place.parent / place.name.removesuffix(words)].append(place)
    return found


def _pair(a: Path, b: Path, metrics: tuple[dict[str, Any], dict[str, Any]], name: str) -> Pair:
    episodes = read_episodes(a), read_episodes(b)
    differ = [
        f"{key} {metrics[0][key]} and {metrics[1][key]}" for key in _SAME if metrics[0][key] != metrics[1][key]
    ]
    absent = [m.get("drawing", {}).get("absent", "leave_out") for m in metrics]
    if absent[0] != absent[1]:
        differ.append(f"classes without episodes: {absent[0]} and {absent[1]}")
    if not differ and len(episodes[0]) != len(episodes[1]):
        differ = [f"{len(episodes[0])} and {len(episodes[1])} episodes"]
    if not differ:
        pairs = (tuple(episode.asked for episode in pair) for pair in zip(*episodes, strict=True))
        differ = [f"{x} and {y}" for x, y in pairs if x != y][:1]
    if differ:
        raise ValueError(
            f"{a} and {b} do not have the same episodes ({'; '.join(differ)}): evaluate both with "
            "the same protocol on the same data"
        )
    return Pair(name, metrics, episodes)


def compare(pairs: Sequence[Pair], resamples: int = RESAMPLES, seed: int = 0) -> Result:
    """Computes B minus A over pairs with the same data set, shot and protocol.

    Args:
        pairs: Pairs of several folds and training seeds. All training seeds of a fold have the same episodes,
            which are resampled together.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: If pairs of one fold have different episodes, or a class has only one.
    """
    strata = _strata(pairs)
    labels = list(dict.fromkeys(stratum.label for stratum in strata))  # by class id
    weights = np.zeros((1 + len(labels), len(strata)))  # of the strata in mIoU and in each class
    for column, stratum in enumerate(strata):
        weights[0, column] = stratum.weight
        weights[1 + labels.index(stratum.label), column] = 1
    weights[0] /= len({pair.metrics[0]["fold"] for pair in pairs})
    weights[1:] /= weights[1:].sum(1, keepdims=True)

    def both(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        """IoU (2, 1 + classes, ...) of A and B, from the episode indices (..., n) drawn in each stratum."""
        sums = [stratum.counts[..., index].sum(-1) for stratum, index in zip(strata, drawn, strict=True)]
        iou = np.stack([(s[0] / np.maximum(s[1], 1)).mean(1) for s in sums], axis=1)  # (2, strata, ...)
        return np.einsum("cs,as...->ac...", weights, iou)

    everything = [np.arange(stratum.counts.shape[-1]) for stratum in strata]
    gathered = sum(stratum.counts.size for stratum in strata)
    from scipy.stats import bootstrap  # slow to import

    done = bootstrap(
        everything,
        lambda *drawn, axis: np.diff(both(*drawn), axis=0)[0],
        vectorized=True,
        axis=-1,
        n_resamples=resamples,
        batch=max(1, _AT_ONCE // gathered),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    a, b = both(*everything)
    low, high = done.confidence_interval
    drawn = done.bootstrap_distribution
    better = (drawn > 0).mean(-1) + (drawn == 0).mean(-1) / 2
    rows = [
        Difference(
            label=label,
            a=float(a[i]),
            b=float(b[i]),
            difference=float(b[i] - a[i]),
            interval=(float(low[i]), float(high[i])),
            better=float(better[i]),
        )
        for i, label in enumerate(["mIoU", *labels])
    ]
    return Result(rows[0], rows[1:], _of_seed(pairs), sum(map(len, everything)), list(pairs))


class _Stratum(NamedTuple):
    """Episodes of one fold, class and evaluation seed.

    Attributes:
        label: Name of the class.
        weight: Weight in the mIoU of its fold.
        counts: (2, 2, P, n) int64: intersection and union; A and B; P training seeds; n episodes.
    """

    label: str
    weight: float
    counts: np.ndarray


def _strata(pairs: Sequence[Pair]) -> list[_Stratum]:
    of_fold: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        of_fold[pair.metrics[0]["fold"]].append(pair)
    strata = []
    for fold, members in sorted(of_fold.items()):
        shown = members[0].episodes[0]
        for pair in members[1:]:
            if [e.asked for e in pair.episodes[0]] != [e.asked for e in shown]:
                raise ValueError(
                    f"{members[0].name} and {pair.name} are both of fold {fold}, but have different episodes"
                )
        counts = np.array(
            [
                [[[getattr(e, key) for e in pair.episodes[run]] for pair in members] for run in range(2)]
                for key in ("intersection", "union")
            ]
        )
        places: dict[tuple[int, str, int], list[int]] = defaultdict(list)
        for i, episode in enumerate(shown):
            places[episode.class_id, episode.class_name, episode.eval_seed].append(i)
        # number of classes in each seed's mean; classes that count as 0 have no episode and thus no stratum
        counted = {of["eval_seed"]: len(of["classes"]) for of in members[0].metrics[0]["seeds"]}
        for (_, name, eval_seed), indices in sorted(places.items()):
            if len(indices) < 2:
                raise ValueError(
                    f"fold {fold}, seed {eval_seed}: {name} has one episode, but an interval needs two or more of "
                    "every class: evaluate with more (episodes=N)"
                )
            weight = 1 / (counted[eval_seed] * len(counted))
            strata.append(_Stratum(name, weight, counts[..., indices]))
    return strata


def _of_seed(pairs: Sequence[Pair]) -> dict[int, float]:
    differences: dict[int, dict[int, float]] = defaultdict(dict)
    for a, b in (pair.metrics for pair in pairs):
        differences[a["seed"]][a["fold"]] = b["miou"] - a["miou"]
    folds = {fold for of in differences.values() for fold in of}
    return {seed: fmean(of.values()) for seed, of in differences.items() if of.keys() == folds}
