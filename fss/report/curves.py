"""Draws learning curves (training loss and validation mIoU) as SVG for light and dark pages."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fss.display.shown import shown
from fss.files.text import read_text
from fss.report.drawing import SVG_SETTINGS, color_of
from fss.report.found import Run

LOGS = "csv"  # see conf/logger/csv.yaml: version_0/metrics.csv, and one more for each time a run was resumed
_PANELS = (("train/loss", "training loss", 1), ("val/miou", "validation mIoU (%)", 100))
LARGEST = 1e12  # larger numbers are none of a training
_POINTS = 150  # per curve, each the mean over consecutive steps
_INK = "#010203"  # placeholder for the colour of the page's text


class Curves(NamedTuple):
    """One drawing: runs of one data set, fold and shot.

    Attributes:
        title: Data set, fold and shot.
        svg: The drawing, to be embedded in a page.
    """

    title: str
    svg: str


def learning_curves(runs: Sequence[Run]) -> list[Curves]:
    """Draws the runs of each data set, fold and shot that has logs."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.config["method"]["name"] != "base" and (run.folder / LOGS).is_dir():
            c = run.config
            groups[f"{c['dataset']['name']}, fold {c['fold']}, {c['shot']}-shot"].append(run)
    names = sorted({_name(run) for members in groups.values() for run in members})
    colors = {name: color_of(i) for i, name in enumerate(names)}  # the same in all drawings
    return [Curves(title, _draw(members, colors)) for title, members in sorted(groups.items())]


def read_logs(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads steps and values of each column of a CSV logger's files, leaving out steps without a value.

    Each file replaces the earlier ones from its first step on, since those steps were lost when the run stopped.

    Args:
        folder: Folder of the logger, with one folder per version.

    Raises:
        ValueError: If a file is not such a log.
    """
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    logs = [file for file in folder.glob("version_*/metrics.csv") if file.parent.name[8:].isdecimal()]
    for file in sorted(logs, key=lambda file: int(file.parent.name[8:])):
        new = _read_log(file)
        begin = min((step for values in new.values() for step, _ in values), default=np.inf)
        for name in points.keys() | new.keys():
            points[name] = [point for point in points[name] if point[0] < begin] + new.get(name, [])
    arrays = {name: np.array(values).reshape(-1, 2) for name, values in points.items()}
    return {name: (values[:, 0], values[:, 1]) for name, values in arrays.items()}


def _read_log(file: Path) -> dict[str, list[tuple[float, float]]]:
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    try:
        for row in csv.DictReader(io.StringIO(read_text(file), newline="")):
            step = float(row["step"])
            for name, text in row.items():
                # what is not finite, or no loss or score at all, cannot be drawn
                if text and name != "step" and abs(value := float(text)) < LARGEST and 0 <= step < LARGEST:
                    points[name].append((step, value))
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{file} is not a training log ({shown(error)}): delete it") from error
    return points


def _name(run: Run) -> str:
    name = shown("-".join(run.config[group]["name"] for group in ("method", "tuning", "backbone")))
    return f" {name}" if name.startswith("_") else name  # matplotlib leaves out of a legend what begins so


def _draw(runs: Sequence[Run], colors: dict[str, str]) -> str:
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK)
    with mpl.rc_context(SVG_SETTINGS | ink):
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        for axes, (column, label, factor) in zip(figure.subplots(1, 2, sharex=True), _PANELS, strict=True):
            for run in runs:
                steps, values = read_logs(run.folder / LOGS).get(column, (np.empty(0), np.empty(0)))
                parts = [p for p in np.array_split(np.arange(len(steps)), _POINTS) if len(p)]
                x, y = [steps[p].mean() for p in parts], [factor * values[p].mean() for p in parts]
                axes.plot(x, y, color=colors[_name(run)], marker="o" if len(x) < 15 else None, ms=3, lw=1.2)
            axes.set(xlabel="step", title=label)
            axes.grid(alpha=0.15, color=_INK)
        names = sorted({_name(run) for run in runs})
        lines = [Line2D([], [], color=colors[name]) for name in names]
        figure.legend(lines, names, loc="outside lower center", ncols=min(len(names), 3), frameon=False)
        return _for_a_page(figure)


def _for_a_page(figure: Figure) -> str:
    """The figure's SVG without its header, in the colour of the page's text."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        r'<svg xmlns:xlink="http://www.w3.org/1999/xlink" \1 role="img">',
        svg,
        count=1,
    )
