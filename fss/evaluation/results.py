"""Files of runs and evaluations: their names, how scores are computed from integers, writing and reading.

A run's folder contains `checkpoints/`, `config.yaml` (all settings), `training.json` (once training has ended) and
`results/`. Each results folder, `RUN/results/CHECKPOINT-PROTOCOL[-SUFFIX]/`, contains one evaluation:

    metrics.json    what was evaluated, the scores, and the integers from which they are computed
    metrics.csv     one row per class and seed
    episodes.csv    one row per episode
    episodes.png    contact sheet of the first episodes; worst.png and best.png for the lowest and highest IoU

Scores are computed only from the episodes' integers (`summarize`), so they depend neither on the order of the
episodes nor on the number of processes.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from fss.display.shown import shown
from fss.evaluation.metrics_file import check_metrics, check_training
from fss.files.digests import digest, stem
from fss.files.plain import as_json, read_json
from fss.files.text import read_text
from fss.files.whole import whole

FORMAT = 2  # version of metrics.json
CHECKPOINTS = "checkpoints"
SETTINGS = "config.yaml"
RECORD = Path(".hydra", "overrides.yaml")  # what was typed when it began
TRAINING = "training.json"
RESULTS = "results"
METRICS = "metrics.json"
CLASSES = "metrics.csv"
EPISODES = "episodes.csv"
PICTURES = "episodes.png"
WORST, BEST = "worst.png", "best.png"
CONFIDENCE = 0.95
INTEGERS = ("intersection", "union", "background_intersection", "background_union")
EPISODE_COLUMNS = ("eval_seed", "id", "class_id", "class", "query", "supports", *INTEGERS)
CLASS_COLUMNS = ("eval_seed", "class_id", "class", "iou", *INTEGERS, "episodes")
# Keys that every metrics.json contains.
REQUIRED = (
    *("dataset", "train_dataset", "method", "tuning", "backbone", "fold", "shot", "train_shot", "seed"),
    *("checkpoint", "selection", "protocol", "eval_classes", "support_annotation", "episodes", "eval_seeds"),
    *("miou", "miou_std", "miou_interval", "fb_iou", "fb_iou_std", "fb_iou_interval", "classes", "seeds"),
    *("classes_left_out", "train_seconds", "test_seconds", "trained_parameters"),
    *("git_revision", "versions", "config"),
)


class EpisodeResult(NamedTuple):
    """Result of one episode, in pixels at the query's original size.

    Attributes:
        eval_seed: Seed of the episodes.
        id: Id of the episode among those of its seed.
        class_id: Id of the episode's class.
        class_name: Name of the episode's class.
        query: Path of the query.
        supports: Paths of the supports.
        intersection, union: Intersection and union of the foreground.
        background_intersection, background_union: Intersection and union of the background.
    """

    eval_seed: int
    id: int
    class_id: int
    class_name: str
    query: str
    supports: tuple[str, ...]
    intersection: int
    union: int
    background_intersection: int
    background_union: int

    @property
    def asked(self) -> tuple[Any, ...]:
        """The fields that identify the episode, without its result."""
        return self.eval_seed, self.id, self.class_id, self.class_name, self.query, self.supports

    @property
    def iou(self) -> float:
        """IoU of the foreground, in 0..1."""
        return self.intersection / max(self.union, 1)


def results_folder(run: Path, checkpoint: str, protocol: str, suffix: str = "") -> Path:
    """Folder with the results of a run's checkpoint ("last" or "best") under a protocol."""
    return run / RESULTS / "-".join(filter(None, (checkpoint, protocol, suffix)))


class Spread(NamedTuple):
    """Mean of some values and, for two or more, their standard deviation and the mean's 95 % interval."""

    mean: float
    std: float | None
    interval: tuple[float, float] | None


def spread(values: Sequence[float]) -> Spread:
    """Computes mean, sample standard deviation, and the mean's interval by Student's t distribution."""
    mean, n = fmean(values), len(values)
    if n < 2:
        return Spread(mean, None, None)
    from scipy.special import stdtrit  # slow to import, and only several seeds need it

    std = stdev(values)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n)
    return Spread(mean, std, (mean - half, mean + half))


def summarize(episodes: Iterable[EpisodeResult], always: Mapping[int, str] | None = None) -> dict[str, Any]:
    """Computes the scores in metrics.json from episodes in any order.

    A class's IoU is its summed intersection divided by its summed union. mIoU is the mean over the classes that
    have episodes or always count. FB-IoU is the mean of the IoUs of foreground and background, each summed over
    all episodes.

    Args:
        episodes: At least one.
        always: Ids and names of classes that count even without episodes, with an IoU of 0.
    """
    ordered = sorted(episodes, key=lambda e: e.eval_seed)
    seeds = [
        _summarize_seed(seed, list(group), always or {})
        for seed, group in groupby(ordered, key=lambda e: e.eval_seed)
    ]
    numbers: dict[str, Any] = {}
    for key in ("miou", "fb_iou"):
        mean, std, interval = spread([seed[key] for seed in seeds])
        numbers |= {key: mean, f"{key}_std": std, f"{key}_interval": list(interval) if interval else None}
    ids = dict(sorted((c["id"], name) for seed in seeds for name, c in seed["classes"].items()))
    classes = {}
    for class_id, name in ids.items():  # a class can be missing for some seeds
        mean, std, _ = spread([seed["classes"][name]["iou"] for seed in seeds if name in seed["classes"]])
        classes[name] = {"id": class_id, "iou": mean, "iou_std": std}
    return {**numbers, "classes": classes, "seeds": seeds}


def _summarize_seed(seed: int, episodes: list[EpisodeResult], always: Mapping[int, str]) -> dict[str, Any]:
    of_class: dict[int, list[EpisodeResult]] = {class_id: [] for class_id in always}
    names = dict(always)
    for episode in episodes:
        of_class.setdefault(episode.class_id, []).append(episode)
        names[episode.class_id] = episode.class_name
    classes: dict[str, dict[str, Any]] = {}
    for class_id, rows in sorted(of_class.items()):
        sums = {key: sum(getattr(row, key) for row in rows) for key in INTEGERS}
        iou = sums["intersection"] / max(sums["union"], 1)
        classes[names[class_id]] = {"id": class_id, "iou": iou, **sums, "episodes": len(rows)}
    total = {key: sum(c[key] for c in classes.values()) for key in INTEGERS}
    foreground = total["intersection"] / max(total["union"], 1)
    background = total["background_intersection"] / max(total["background_union"], 1)
    return {
        "eval_seed": seed,
        "miou": fmean(c["iou"] for c in classes.values()),
        "fb_iou": (foreground + background) / 2,
        "classes": classes,
    }


def episode_digests(episodes: Iterable[EpisodeResult]) -> dict[str, str]:
    """Identifies the episodes of each seed, whatever the results.

    Returns:
        For each seed the digest of the lines "class query support ..." in order of id, with class ids and the
        stems of the pictures.
    """
    lines: dict[str, list[str]] = {}
    for e in sorted(episodes, key=lambda e: (e.eval_seed, e.id)):
        lines.setdefault(str(e.eval_seed), []).append(
            " ".join([str(e.class_id), *map(stem, (e.query, *e.supports))])
        )
    return {seed: digest(of) for seed, of in lines.items()}


def remarkable(episodes: Iterable[EpisodeResult], count: int) -> dict[str, list[int]]:
    """Selects the episodes to draw in each file: the first ones and those with the lowest and highest IoU.

    If IoUs are equal, the episode with the larger union comes first.

    Args:
        episodes: Episodes of one seed, in any order.
        count: Maximum number of episodes per file.

    Returns:
        Episode ids by file name.
    """
    ordered = sorted(episodes, key=lambda e: e.id)
    orders: dict[str, Callable[[EpisodeResult], Any]] = {
        PICTURES: lambda e: e.id,
        WORST: lambda e: (e.iou, -e.union),
        BEST: lambda e: (-e.iou, -e.union),
    }
    return {file: [e.id for e in sorted(ordered, key=key)[:count]] for file, key in orders.items()}


def write_results(folder: Path, metrics: Mapping[str, Any], episodes: Iterable[EpisodeResult]) -> None:
    """Writes metrics.json, metrics.csv and episodes.csv, all of them or none, metrics.json last.

    Args:
        folder: The results folder.
        metrics: Content of metrics.json, without its format.
        episodes: The episodes, which are written sorted by seed and id.
    """
    rows = map(episode_row, sorted(episodes, key=lambda e: (e.eval_seed, e.id)))
    classes = (
        (seed["eval_seed"], c["id"], name, c["iou"], *(c[key] for key in INTEGERS), c["episodes"])
        for seed in metrics["seeds"]
        for name, c in seed["classes"].items()
    )
    with ExitStack() as stack:  # all are on the disk before the first takes its name, which the last opened does
        json_file = stack.enter_context(whole(folder / METRICS))
        json_file.write_text(as_json({"format": FORMAT, **metrics}), encoding="utf-8")
        _write_csv(stack.enter_context(whole(folder / CLASSES)), CLASS_COLUMNS, classes)
        _write_csv(stack.enter_context(whole(folder / EPISODES)), EPISODE_COLUMNS, rows)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def episode_row(episode: EpisodeResult) -> list[Any]:
    """Returns an episode's values in the order of `EPISODE_COLUMNS`."""
    return [_joined(value) if isinstance(value, tuple) else value for value in episode]


def parse_episode(row: Sequence[str]) -> EpisodeResult:
    """Parses a row of episodes.csv.

    Raises:
        ValueError: If it is not an episode.
    """
    if len(row) != len(EPISODE_COLUMNS):
        raise ValueError(f"{len(row)} columns instead of {len(EPISODE_COLUMNS)}")
    seed, number, class_id, name, query, supports, *integers = row
    numbers = seed, number, class_id, *integers
    if odd := [value for value in numbers if not (value.isascii() and value.isdigit() and len(value) < 19)]:
        raise ValueError(f"{odd[0]!r:.100} is not a number of pixels, an id or a seed")
    counts = [int(value) for value in integers]
    episode = EpisodeResult(int(seed), int(number), int(class_id), name, query, _split(supports), *counts)
    if episode.intersection > episode.union or episode.background_intersection > episode.background_union:
        raise ValueError("an intersection is larger than its union")
    return episode


def _joined(names: Sequence[str]) -> str:
    """Names between semicolons; as JSON where one of them could not be told from that."""
    odd = any(";" in name or name.startswith("[") for name in names)
    return json.dumps(names, ensure_ascii=False) if odd else ";".join(names)


def _split(joined: str) -> tuple[str, ...]:
    """The names that `_joined` was given."""
    if joined.startswith("["):
        try:
            names = json.loads(joined)
        except (ValueError, RecursionError):  # a name of a file from before there was JSON
            names = None
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names)
    return tuple(joined.split(";"))


def read_metrics(folder: Path) -> dict[Path, dict[str, Any]]:
    """Reads the metrics of every evaluation below a folder, keyed by the path of metrics.json and sorted by it.

    Raises:
        ValueError: If a file is not a metrics file of this version.
    """
    return {path: read_metrics_file(path) for path in sorted(folder.rglob(METRICS))}


def read_metrics_file(path: Path) -> dict[str, Any]:
    """Reads the metrics of one evaluation.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a metrics file of this version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: evaluate first (python evaluate.py)")
    try:
        metrics = read_json(path)
        found = metrics.get("format", 1)
        absent = [key for key in REQUIRED if key not in metrics]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a metrics file of this program ({shown(error)}): delete it") from error
    if found != FORMAT:
        raise ValueError(
            f"{path} has format {shown(found)}, but this version reads {FORMAT}: delete it and run "
            "evaluate.py again"
        )
    if absent:
        raise ValueError(f"{path} is not a metrics file of this program (no {', '.join(absent)}): delete it")
    try:
        check_metrics(metrics, _summary_of_sums)
    except ValueError as error:
        raise ValueError(f"{path} is not what this program wrote ({shown(error)}): delete it") from error
    return metrics


def _summary_of_sums(rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """`summarize` of classes' integers: (eval_seed, class id, name, integers) each."""
    sums = (EpisodeResult(seed, 0, class_id, name, "", (), *rest) for seed, class_id, name, *rest in rows)
    summary = summarize(sums)
    for seed in summary["seeds"]:
        for scores in seed["classes"].values():
            del scores["episodes"]  # which these rows do not know
    return summary


def read_training(path: Path) -> dict[str, Any]:
    """`seconds` and `parameters` of a training that has ended; nothing of one that has not.

    Raises:
        ValueError: The file is not what a training writes.
    """
    if not path.is_file():
        return {}
    training = read_json(path)
    try:
        check_training(training)
    except ValueError as error:
        raise ValueError(f"{path} is not what a training writes ({shown(error)}): delete it") from error
    return training


def read_episodes(folder: Path) -> list[EpisodeResult]:
    """Reads the episodes of one evaluation, sorted by seed and id.

    Args:
        folder: The results folder.

    Raises:
        FileNotFoundError: If there is no episodes.csv.
        ValueError: If a line is not an episode; the message names it.
    """
    path = folder / EPISODES
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: evaluate first (python evaluate.py)")
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    episodes = []
    try:
        if tuple(next(reader, ())) != EPISODE_COLUMNS:
            raise ValueError("other columns")
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is no episodes file of this version ({error}): delete it and run evaluate.py again"
        ) from error
    try:
        for row in reader:
            episodes.append(parse_episode(row))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}, line {reader.line_num}: not an episode ({shown(error)})") from error
    if len({(episode.eval_seed, episode.id) for episode in episodes}) < len(episodes):
        raise ValueError(f"{path} holds an episode twice: delete it and run evaluate.py again")
    return episodes
