"""Results of runs: `metrics.json` of each, and tables of many.

python -m fss.report outputs/shapes      # a table for each set of runs that share their episodes
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from fss.results import METRICS, PICTURES, read_metrics

# Runs whose numbers can stand in one table: the same episodes of the same classes.
_SHARED = ("dataset", "fold", "shot", "eval_classes", "support_annotation", "episodes", "eval_seeds")


def tables(metrics: dict[Path, dict[str, Any]]) -> list[Table]:
    """One table for each set of runs that share data, classes and episodes.

    A column is a method, tuning and backbone: over its seeds mean and standard deviation. Best mIoU last.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for run in metrics.values():
        groups[tuple(str(run[key]) for key in _SHARED)].append(run)
    return [_table(runs) for _, runs in sorted(groups.items(), key=lambda item: str(item[0]))]


def _table(runs: list[dict[str, Any]]) -> Table:
    columns: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        columns[run["method"], run["tuning"], run["backbone"]].append(run)
    ordered = sorted(columns.values(), key=lambda column: fmean(run["miou"] for run in column))
    first = ordered[0][0]
    # what all columns share stands in the title, so that eighty columns of text hold several
    told = [[column[0]["backbone"], _seeds(column)] for column in ordered]
    shared = [len({column[i] for column in told}) == 1 for i in range(2)]
    title = "".join(f", {text}" for text, is_shared in zip(told[0], shared, strict=True) if is_shared)
    episode_seeds = ", ".join(map(str, first["eval_seeds"]))
    table = Table(
        title=f"{first['dataset']}, fold {first['fold']}, {first['shot']}-shot{title}\nIoU of "
        f"{first['eval_classes']} classes over {first['episodes']} episodes (seed {episode_seeds})"
        + (", supports as boxes" if first["support_annotation"] == "box" else ""),
        title_justify="left",
    )
    table.add_column("")
    for column, texts in zip(ordered, told, strict=True):
        tuning = column[0]["tuning"] if column[0]["trained_parameters"] != 0 else "training-free"
        own = [text for text, is_shared in zip(texts, shared, strict=True) if not is_shared]
        table.add_column("\n".join([column[0]["method"], tuning, *own]), justify="right")
    for name in dict.fromkeys(name for column in ordered for run in column for name in run["classes"]):
        scores = [[run["classes"].get(name, {}).get("iou") for run in column] for column in ordered]
        table.add_row(name, *(_cell(values, ".3f") for values in scores))
    table.add_section()
    for label, key, style in (
        ("mIoU", "miou", ".3f"),
        ("FB-IoU", "fb_iou", ".3f"),
        ("training (s)", "train_seconds", ".0f"),
        ("evaluation (s)", "test_seconds", ".0f"),
        ("parameters trained", "trained_parameters", ",.0f"),
    ):
        cells = [_cell([run[key] for run in column], style) for column in ordered]
        table.add_row(label, *cells, style="bold" if key == "miou" else None)
    return table


def _seeds(column: list[dict[str, Any]]) -> str:
    return f"seed {column[0]['seed']}" if len(column) == 1 else f"{len(column)} seeds"


def _cell(values: list[float | None], style: str) -> str:
    """A value; of several seeds mean and standard deviation."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    mean = format(fmean(known), style)
    return mean if len(set(known)) == 1 else f"{mean} ± {format(stdev(known), style)}"


def main() -> int:
    """Prints the tables of a folder of runs and where their pictures are."""
    parser = argparse.ArgumentParser(prog="python -m fss.report", description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("outputs"), help="default: %(default)s")
    folder = parser.parse_args().folder
    console = Console()
    try:
        metrics = read_metrics(folder)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if not metrics:
        print(f"no {METRICS} below {folder}: train or evaluate first (python train.py)", file=sys.stderr)
        return 1
    for table in tables(metrics):
        console.print(table)
    pictures = [path.with_name(PICTURES) for path in metrics if path.with_name(PICTURES).is_file()]
    if pictures:
        console.print("Pictures of episodes:")
        for path in pictures:
            print(f"  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
