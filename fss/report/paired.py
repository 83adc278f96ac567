"""Differences between the rows of a collection, on the episodes that both have answered.

Every row is compared with SVF of its own method and backbone; SVF itself, and methods without it, with the best
row of SVF; and an evaluation that changed something of its run with one that did not. Controls are rows like any
other: the supports differ, what is asked is the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from fss.display.shown import shown
from fss.evaluation.metrics_file import is_count
from fss.report.collection import Collection, Result, check, is_numbers, read_content
from fss.report.compare import Pair, compare

OURS = "svf"


class Paired(NamedTuple):
    """B minus A on the same episodes, mIoU as fractions; see `fss.report.compare`.

    Attributes:
        a, b: Places of a result of each row in the collection.
        folds, seeds: Folds and training seeds that both have.
        episodes: Number of different episodes.
        values: mIoU of A, of B, and B - A.
        interval: 95 % interval of the difference over episodes.
        of_seed: Difference for each training seed.
        classes: Difference in IoU of each class, with its interval.
    """

    a: int
    b: int
    folds: list[int]
    seeds: list[int]
    episodes: int
    values: list[float]
    interval: list[float]
    of_seed: dict[str, float]
    classes: dict[str, list[float]]


def paired(collection: Collection) -> list[Paired]:
    """Compares every row of novel classes with a row of SVF (B), where both have answered the same questions."""
    rows: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for number, result in enumerate(collection.results):
        if result.told["eval_classes"] == "novel" and result.told["selection"] == "none":
            rows[result.row].append(number)
    of_row = {row: [collection.results[i] for i in numbers] for row, numbers in rows.items()}
    made = []
    for row, numbers in rows.items():
        reference = _reference(of_row[row], [of_row[other] for other in rows if other != row])
        pairs = _pairs(of_row[row], reference) if reference else []
        if reference and pairs:
            made.append(_compared(pairs, numbers[0], rows[reference[0].row][0]))
    return made


def read_pairs(file: Path) -> list[Paired]:
    """Reads the differences that a collection's file holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no collection of this version.
    """
    content = read_content(file)
    try:
        pairs = [_read_pair(**told) for told in content["pairs"]]
        if odd := {i for pair in pairs for i in (pair.a, pair.b)} - set(range(len(content["results"]))):
            raise ValueError(f"no result {min(odd)}")
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({type(error).__name__}: {shown(error)}): collect anew") from error
    return pairs


def is_control(result: Result) -> bool:
    """Whether training or supports lack something on purpose."""
    return result.place not in ("", "usual") or result.told["support_annotation"] != "mask"


def _read_pair(**told: Any) -> Paired:
    pair = Paired(**told)
    check(all(map(is_count, (pair.a, pair.b, pair.episodes, *pair.folds, *pair.seeds))), "what a difference is of")
    check(is_numbers(pair.values, 3) and is_numbers(pair.interval, 2), "a difference")
    check(is_numbers(list(pair.of_seed.values()), len(pair.of_seed)), "the difference of each seed")
    check(all(is_numbers(values, 3) for values in pair.classes.values()), "the difference of each class")
    return pair


def _reference(row: Sequence[Result], others: Sequence[list[Result]]) -> list[Result] | None:
    """The row of SVF to compare a row with: of its own method and backbone, or else the best.

    Of what was changed, it is the row of the same model as it was trained, where there is one.
    """
    first = row[0].told
    rows = [other for other in others if other[0].told["shot"] == first["shot"] and _pairs(row, other)]
    own = [
        other
        for other in rows
        if all(other[0].told[key] == first[key] for key in ("method", "backbone", "train_shot"))
        and not (other[0].told.get("changed") or is_control(other[0]))
    ]
    if first.get("changed"):
        for other in own:
            if all(other[0].told.get(key) == first.get(key) for key in ("tuning", "adapt")):
                return other
    ours = [other for other in rows if _is_ours(other)]
    if _is_ours(row):
        ours = [o for o in ours if _mean(o) > _mean(row) and not o[0].told.get("changed")]
    return max([other for other in own if other in ours] or ours, key=_mean, default=None)


def _is_ours(row: Sequence[Result]) -> bool:
    told = row[0].told
    is_svf = told["tuning"] == OURS and told["trained_parameters"] != 0 and not told.get("adapt")
    return is_svf and not is_control(row[0])


def _mean(row: Sequence[Result]) -> float:
    return fmean(result.scores["miou"] for result in row)


def _pairs(a: Sequence[Result], b: Sequence[Result]) -> list[Pair]:
    """Results of the same fold, seed and questions; what was not trained has no seed of its own."""
    pairs = []
    for one in b:
        for other in a:
            same = other.told["fold"] == one.told["fold"] and other.questions == one.questions
            untrained = other.told["trained_parameters"] == 0
            if same and (untrained or other.told["seed"] == one.told["seed"]):
                seed = {"seed": one.told["seed"]}
                metrics = {**other.told, **other.scores, **seed}, {**one.told, **one.scores}
                pairs.append(Pair(f"fold {one.told['fold']}", metrics, (other.episodes, one.episodes)))
    return pairs


def _compared(pairs: list[Pair], a: int, b: int) -> Paired:
    result = compare(pairs)
    both = [pair.metrics[1] for pair in pairs]
    return Paired(
        a=a,
        b=b,
        folds=sorted({m["fold"] for m in both}),
        seeds=sorted({m["seed"] for m in both}),
        episodes=result.episodes,
        values=[result.miou.a, result.miou.b, result.miou.difference],
        interval=list(result.miou.interval),
        of_seed={str(seed): value for seed, value in sorted(result.of_seed.items())},
        classes={row.label: [row.difference, *row.interval] for row in result.classes},
    )
