"""Two runs on the same episodes: the difference of their mIoU, and how sure it is.

The episodes are a sample, and both runs answered the same ones, so their difference is known better than either
mIoU. A stratified paired bootstrap says how well: within each class the episodes are drawn again with replacement,
the same for both runs, and intersections and unions summed anew. The interval is of other episodes of these
classes, a little short where a class has only a dozen. It is not of other training seeds: compare several and look
at how the difference spreads over them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import bootstrap

from fss.evaluation.results import CONFIDENCE, METRICS, EpisodeResult, read_episodes, read_metrics

RESAMPLES = 9999
_AT_ONCE = 4_000_000  # numbers gathered at a time
_SAME = ("dataset", "fold", "shot", "eval_classes", "support_annotation", "protocol", "episodes", "eval_seeds")


class Pair(NamedTuple):
    """Two evaluations of the same episodes.

    Attributes:
        name: Where both are, below the folders compared.
        metrics: Of A and B.
        episodes: Of A and B, in the same order.
    """

    name: str
    metrics: tuple[dict[str, Any], dict[str, Any]]
    episodes: tuple[list[EpisodeResult], list[EpisodeResult]]


class Difference(NamedTuple):
    """B less A, as fractions.

    Attributes:
        label: A class, or "mIoU".
        a, b: The values compared.
        difference: b - a.
        interval: Its 95 % interval over episodes.
        better: Share of resamples in which B has the higher value; ties count a half.
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
        miou: Mean over folds, over evaluation seeds, over classes; over training seeds at each.
        classes: Class by class.
        of_seed: B less A of each training seed, as far as it has all folds.
        episodes: How many different episodes.
        pairs: What was compared.
    """

    miou: Difference
    classes: list[Difference]
    of_seed: dict[int, float]
    episodes: int
    pairs: list[Pair]


def find_pairs(a: Path, b: Path) -> tuple[list[list[Pair]], list[str]]:
    """Evaluations that lie in the same place below two folders.

    Args:
        a: A results folder, a run, or any folder above.
        b: Of the same kind.

    Returns:
        Pairs, a list for each set that can be averaged (same data set, shot, protocol and choice of weights); and
        what only one folder has.

    Raises:
        FileNotFoundError: A folder has no evaluation, or there is no pair.
        ValueError: A pair has different episodes.
    """
    found = []
    for folder in (a, b):
        metrics = {path.parent.relative_to(folder): m for path, m in read_metrics(folder).items()}
        if not metrics:
            raise FileNotFoundError(f"no {METRICS} below {folder}: train or evaluate first (python evaluate.py)")
        found.append(metrics)
    common = sorted(found[0].keys() & found[1].keys())
    if not common:
        shown = [", ".join(sorted(map(str, metrics))[:4]) for metrics in found]
        raise FileNotFoundError(
            f"nothing lies in the same place below {a} ({shown[0]}) and {b} ({shown[1]}): name two results folders"
        )
    groups: dict[Any, list[Pair]] = defaultdict(list)
    for place in common:
        pair = _pair(place, a, b, (found[0][place], found[1][place]))
        groups[
            tuple(str(m[key]) for m in pair.metrics for key in ("dataset", "shot", "protocol", "selection"))
        ].append(pair)
    alone = [
        str(f / place) for f, metrics in zip((a, b), found, strict=True) for place in metrics.keys() - set(common)
    ]
    return [groups[key] for key in sorted(groups)], sorted(alone)


def _pair(place: Path, a: Path, b: Path, metrics: tuple[dict[str, Any], dict[str, Any]]) -> Pair:
    episodes = read_episodes(a / place), read_episodes(b / place)
    differ = [
        f"{key} {metrics[0][key]} and {metrics[1][key]}" for key in _SAME if metrics[0][key] != metrics[1][key]
    ]
    absent = [(m.get("drawing") or {}).get("absent", "leave_out") for m in metrics]
    if absent[0] != absent[1]:
        differ.append(f"classes without episodes: {absent[0]} and {absent[1]}")
    if not differ and len(episodes[0]) != len(episodes[1]):
        differ = [f"{len(episodes[0])} and {len(episodes[1])} episodes"]
    if not differ:
        differ = [f"{x[:6]} and {y[:6]}" for x, y in zip(*episodes, strict=True) if x[:6] != y[:6]][:1]
    if differ:
        raise ValueError(
            f"{a / place} and {b / place} are not of the same episodes ({'; '.join(differ)}): evaluate both by "
            "the same protocol on the same data"
        )
    return Pair(str(place), metrics, episodes)


def compare(pairs: Sequence[Pair], resamples: int = RESAMPLES, seed: int = 0) -> Result:
    """B less A over pairs of the same data set, shot and protocol.

    Args:
        pairs: Folds and training seeds. Training seeds of a fold have the same episodes, which are drawn together.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: Pairs of one fold have different episodes.
    """
    strata = _strata(pairs)
    labels = list(dict.fromkeys(stratum.label for stratum in strata))  # by class id
    weights = np.zeros((1 + len(labels), len(strata)))  # mIoU and class by class, as means of strata
    for column, stratum in enumerate(strata):
        weights[0, column] = stratum.weight
        weights[1 + labels.index(stratum.label), column] = 1
    weights[0] /= len({pair.metrics[0]["fold"] for pair in pairs})
    weights[1:] /= weights[1:].sum(1, keepdims=True)

    def both(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        """IoU (2, 1 + classes, ...) of A and B from the episodes drawn (..., n) of each stratum."""
        sums = [stratum.counts[..., index].sum(-1) for stratum, index in zip(strata, drawn, strict=True)]
        iou = np.stack([(s[0] / np.maximum(s[1], 1)).mean(1) for s in sums], axis=1)  # (2, strata, ...)
        return np.einsum("cs,as...->ac...", weights, iou)

    everything = [np.arange(stratum.counts.shape[-1]) for stratum in strata]
    gathered = sum(stratum.counts.size for stratum in strata)
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
    """Episodes of one class and evaluation seed of a fold.

    Attributes:
        label: The class.
        weight: Its share of its fold's mIoU.
        counts: (2, 2, P, n) int64: intersection and union, of A and B, of P training seeds, of n episodes.
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
            if [e[:6] for e in pair.episodes[0]] != [e[:6] for e in shown]:
                raise ValueError(
                    f"{members[0].name} and {pair.name} are both of fold {fold}, but of other episodes"
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
        # classes of the mean, of which some may have no episode and count as 0
        counted = {of["eval_seed"]: len(of["classes"]) for of in members[0].metrics[0]["seeds"]}
        for (_, name, eval_seed), indices in sorted(places.items()):
            weight = 1 / (counted[eval_seed] * len(counted))  # each fold has 1 in all, but for classes without any
            strata.append(_Stratum(name, weight, counts[..., indices]))
    return strata


def _of_seed(pairs: Sequence[Pair]) -> dict[int, float]:
    differences: dict[int, dict[int, float]] = defaultdict(dict)
    for a, b in (pair.metrics for pair in pairs):
        differences[a["seed"]][a["fold"]] = b["miou"] - a["miou"]
    folds = {fold for of in differences.values() for fold in of}
    return {seed: fmean(of.values()) for seed, of in differences.items() if of.keys() == folds}
