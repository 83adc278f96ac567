"""Scores of the episodes whose query shows several classes, where only the supports tell which one is asked for.

    python -m bench.crowded OUTPUTS --data DIR

OUTPUTS is a folder of evaluations on PASCAL-5i's layout, DIR contains VOC2012. A picture with one main object can
be segmented without looking at the supports; one that shows two classes cannot. Of each evaluation's episodes,
those whose query shows at least two of the data set's classes, each with the minimum of pixels that the evaluation
asked for, are scored by themselves, and so are the others. Rows are means over the folds and seeds that there are.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rich.table import Table

from fss.data.index import build_index
from fss.data.readers.pascal import Pascal
from fss.display.console import PlainConsole
from fss.evaluation.results import EpisodeResult, read_episodes, read_metrics, summarize
from fss.evaluation.tables import changes, supports_told, tuning_told


class Part(NamedTuple):
    """mIoU (fractions) and number of one evaluation's episodes whose query shows one class, and several.

    Attributes:
        one, several: mIoU; None without such episodes.
        episodes: Number of episodes whose query shows several.
    """

    one: float | None
    several: float | None
    episodes: int


def shown_classes(data: Path, min_pixels: int) -> Counter[str]:
    """How many classes each validation picture shows with enough pixels, by the picture's name.

    Raises:
        ValueError, OSError: See `Pascal` and `build_index`.
    """
    reader = Pascal(str(data), "val")
    index = build_index(reader)
    images = index.image[index.pixels >= min_pixels]
    return Counter(Path(reader.name(image)).stem for image in images.tolist())


def split(episodes: list[EpisodeResult], shown: Mapping[str, int]) -> Part:
    """Scores the episodes of one evaluation by how many classes their query shows.

    Raises:
        ValueError: A query is none of these pictures.
    """
    parts: dict[bool, list[EpisodeResult]] = {True: [], False: []}
    for episode in episodes:
        name = Path(episode.query).stem
        if name not in shown:
            raise ValueError(f"the query {episode.query} is no picture of the data: give the data evaluated on")
        parts[shown[name] > 1].append(episode)
    one, several = (summarize(parts[key])["miou"] if parts[key] else None for key in (False, True))
    return Part(one, several, len(parts[True]))


def collect(outputs: Path, data: Path) -> dict[tuple[str, int], list[Part]]:
    """The parts of all evaluations of novel classes below a folder, by row: what is evaluated, and its shots.

    Raises:
        FileNotFoundError: There is none.
        ValueError, OSError: See `shown_classes` and `split`.
    """
    rows: dict[tuple[str, int], list[Part]] = defaultdict(list)
    shown: dict[int, Counter[str]] = {}
    read = {
        file: metrics
        for file, metrics in read_metrics(outputs).items()
        if metrics["eval_classes"] == "novel" and metrics["selection"] == "none" and not changes(metrics)
    }
    several = len({metrics["backbone"] for metrics in read.values()}) > 1
    for file, metrics in read.items():
        least = metrics["config"]["dataset"]["min_pixels"]
        if least not in shown:
            shown[least] = shown_classes(data, least)
        name = _name(file.relative_to(outputs), metrics) + f", {metrics['backbone']}" * several
        rows[name, metrics["shot"]].append(split(read_episodes(file.parent), shown[least]))
    if not rows:
        raise FileNotFoundError(f"no evaluation of novel classes below {outputs}: `make real` makes them")
    return rows


def _name(file: Path, metrics: Mapping[str, Any]) -> str:
    variant = file.parts[0].replace("_", " ") + ": " if file.parts[0] not in ("usual", metrics["dataset"]) else ""
    return f"{variant}{metrics['method']}, {tuning_told(metrics)}{supports_told(metrics)}"


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path, metavar="OUTPUTS")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder that contains VOC2012")
    given = parser.parse_args()
    try:
        rows = collect(given.outputs, given.data)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    table = Table("", title="mIoU in percent by what the query shows", title_justify="left")
    for heading in ("shots", "one class", "several", "episodes", "evaluations"):
        table.add_column(heading, justify="right")
    for (name, shot), parts in sorted(rows.items(), key=lambda row: (row[0][1], row[0][0])):
        one, several = _mean([part.one for part in parts]), _mean([part.several for part in parts])
        count = sum(part.episodes for part in parts)
        table.add_row(name, str(shot), _percent(one), _percent(several), str(count), str(len(parts)))
    PlainConsole().print(table)


if __name__ == "__main__":
    main()
