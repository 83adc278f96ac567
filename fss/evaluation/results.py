"""Runs and results of evaluations: which files there are, how integers become numbers, writing and reading.

A run's folder holds `checkpoints/`, `config.yaml` (all settings), `training.json` (when training has ended) and
`results/`. Each results folder, `RUN/results/CHECKPOINT-PROTOCOL[-SUFFIX]/`, holds one evaluation of some weights:

    metrics.json    what was evaluated on what, the numbers and the integers that they come from
    metrics.csv     a row a class and seed
    episodes.csv    a row an episode
    episodes.png    contact sheet of the first episodes; worst.png and best.png of those by IoU

Numbers are functions of the episodes' integers alone (`summarize`), so they depend neither on the order of the
episodes nor on how many processes worked on them.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy.special import stdtrit

from fss.data.lists import digest, stem
from fss.files import whole

FORMAT = 2  # of metrics.json
CHECKPOINTS = "checkpoints"
SETTINGS = "config.yaml"
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
# What every metrics.json has.
REQUIRED = (
    *("dataset", "train_dataset", "method", "tuning", "backbone", "fold", "shot", "train_shot", "seed"),
    *("checkpoint", "selection", "protocol", "eval_classes", "support_annotation", "episodes", "eval_seeds"),
    *("miou", "miou_std", "miou_interval", "fb_iou", "fb_iou_std", "fb_iou_interval", "classes", "seeds"),
    *("classes_left_out", "train_seconds", "test_seconds", "trained_parameters"),
    *("git_revision", "versions", "config"),
)


class EpisodeResult(NamedTuple):
    """What one episode gave: pixels in common and in either, at the query's original size.

    Attributes:
        eval_seed: Of the episodes.
        id: Of the episode among those of its seed.
        class_id: The class asked for.
        class_name: Its name.
        query: The query's file.
        supports: The supports' files.
        intersection, union: Of the foreground.
        background_intersection, background_union: Of the background.
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
    def iou(self) -> float:
        """Of the foreground; a fraction."""
        return self.intersection / max(self.union, 1)


def results_folder(run: Path, checkpoint: str, protocol: str, suffix: str = "") -> Path:
    """Where the results of a run's checkpoint ("last" or "best") under a protocol are."""
    return run / RESULTS / "-".join(filter(None, (checkpoint, protocol, suffix)))


class Spread(NamedTuple):
    """Mean of some values; of two and more also their standard deviation and the mean's 95 % interval."""

    mean: float
    std: float | None
    interval: tuple[float, float] | None


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation of the sample, and interval of the mean by Student's t distribution."""
    mean, n = fmean(values), len(values)
    if n < 2:
        return Spread(mean, None, None)
    std = stdev(values)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n)
    return Spread(mean, std, (mean - half, mean + half))


def summarize(episodes: Iterable[EpisodeResult], always: Mapping[int, str] | None = None) -> dict[str, Any]:
    """The numbers of metrics.json that come from episodes, which may have any order.

    A class's IoU is its summed intersection by its summed union. mIoU is the mean over the classes that have
    episodes, and those that always count. FB-IoU is the mean of the IoUs of foreground and background, each summed
    over all episodes. Each seed's `episodes_sha256` tells whether two evaluations had the same episodes: it is the
    digest of lines "class query support ...", by id, of class ids and the pictures' stems.

    Args:
        episodes: One at least.
        always: Ids and names of classes that count even without an episode, with an IoU of 0.
    """
    ordered = sorted(episodes, key=lambda e: (e.eval_seed, e.id))
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
    for class_id, name in ids.items():  # a class can miss in some seeds
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
        "episodes_sha256": digest(
            " ".join([str(e.class_id), *map(stem, (e.query, *e.supports))]) for e in episodes
        ),
    }


def remarkable(episodes: Iterable[EpisodeResult], count: int) -> dict[str, list[int]]:
    """Ids of the episodes to be drawn, by the file to draw them in: the first, and those of least and most IoU.

    Of equal IoU the one with more pixels comes first.

    Args:
        episodes: Of one seed, any order.
        count: How many of each kind, at most.
    """
    ordered = sorted(episodes, key=lambda e: e.id)
    orders: dict[str, Callable[[EpisodeResult], Any]] = {
        PICTURES: lambda e: e.id,
        WORST: lambda e: (e.iou, -e.union),
        BEST: lambda e: (-e.iou, -e.union),
    }
    return {file: [e.id for e in sorted(ordered, key=key)[:count]] for file, key in orders.items()}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all."""
    with whole(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n")


def write_results(folder: Path, metrics: Mapping[str, Any], episodes: Iterable[EpisodeResult]) -> None:
    """Writes metrics.json, metrics.csv and episodes.csv, each whole or not at all, metrics.json last.

    Args:
        folder: The results folder.
        metrics: What metrics.json is to hold, besides its format.
        episodes: Written by seed and id.
    """
    _write_csv(folder / EPISODES, EPISODE_COLUMNS, map(episode_row, sorted(episodes, key=lambda e: e[:2])))
    classes = (
        (seed["eval_seed"], c["id"], name, c["iou"], *(c[key] for key in INTEGERS), c["episodes"])
        for seed in metrics["seeds"]
        for name, c in seed["classes"].items()
    )
    _write_csv(folder / CLASSES, CLASS_COLUMNS, classes)
    write_json(folder / METRICS, {"format": FORMAT, **metrics})


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with whole(path) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def episode_row(episode: EpisodeResult) -> list[Any]:
    """An episode's values in the order of `EPISODE_COLUMNS`."""
    return [";".join(value) if isinstance(value, tuple) else value for value in episode]


def parse_episode(row: Sequence[str]) -> EpisodeResult:
    """The episode of a row of episodes.csv.

    Raises:
        ValueError: It is none.
    """
    if len(row) != len(EPISODE_COLUMNS):
        raise ValueError(f"{len(row)} columns in place of {len(EPISODE_COLUMNS)}")
    seed, number, class_id, name, query, supports, *integers = row
    counts = [int(value) for value in integers]
    return EpisodeResult(int(seed), int(number), int(class_id), name, query, tuple(supports.split(";")), *counts)


def read_metrics(folder: Path) -> dict[Path, dict[str, Any]]:
    """The metrics of every evaluation below a folder, by the path of its metrics.json, in order of the paths.

    Raises:
        ValueError: A file is not a metrics file of this version.
    """
    return {path: read_metrics_file(path) for path in sorted(folder.rglob(METRICS))}


def read_metrics_file(path: Path) -> dict[str, Any]:
    """One evaluation's metrics.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a metrics file of this version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: evaluate first (python evaluate.py)")
    try:
        metrics = json.loads(path.read_text())
        found = metrics.get("format", 1)
        absent = [key for key in REQUIRED if key not in metrics]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a metrics file of this program ({error!r}): delete it") from error
    if found != FORMAT:
        raise ValueError(
            f"{path} has the format {found}, this version reads {FORMAT}: delete it and run evaluate.py again"
        )
    if absent:
        raise ValueError(f"{path} is not a metrics file of this program (no {', '.join(absent)}): delete it")
    return metrics


def read_episodes(folder: Path) -> list[EpisodeResult]:
    """The episodes of one evaluation, by seed and id.

    Args:
        folder: The results folder.

    Raises:
        FileNotFoundError: There is no episodes.csv.
        ValueError: A line is not an episode; it is named.
    """
    path = folder / EPISODES
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: evaluate first (python evaluate.py)")
    episodes = []
    with path.open(newline="") as file:
        reader = csv.reader(file)
        if tuple(next(reader, ())) != EPISODE_COLUMNS:
            raise ValueError(f"{path} is no episodes file of this version: delete it and run evaluate.py again")
        for row in reader:
            try:
                episodes.append(parse_episode(row))
            except ValueError as error:
                raise ValueError(f"{path}, line {reader.line_num}: not an episode ({error})") from error
    return episodes
