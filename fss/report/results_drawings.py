"""Drawings of a page of results, as SVG files that look alike on every machine: learning curves and classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

import matplotlib as mpl
from matplotlib.figure import Figure

from fss.display.shown import shown
from fss.report.collection import Curve
from fss.report.drawing import SVG_SETTINGS, as_svg, color_of

MOST_RANGES = 4  # lines with a range each in a panel; more ranges hide the lines


def draw_curves(curves: Sequence[Curve]) -> str:
    """Training loss and validation mIoU of each tuning, means over folds and seeds.

    Args:
        curves: At least one. Each method and backbone has a row; a backbone is named where its method has several.
            A tuning has one colour in all rows, those of most rows the first ones.
            Their ranges are drawn in rows of at most `MOST_RANGES` tunings.
    """
    groups: dict[tuple[str, str], dict[str, list[Curve]]] = defaultdict(lambda: defaultdict(list))
    for curve in curves:
        groups[curve.method, curve.backbone][curve.tuning].append(curve)
    backbones = Counter(method for method, _ in groups)
    shared = Counter(tuning for tunings in groups.values() for tuning in tunings)
    styles = {}
    for number, tuning in enumerate(sorted(shared, key=lambda name: (-shared[name], name))):
        color = color_of(number)
        dashes = "--" if color in map(color_of, range(number)) else "-"
        styles[tuning] = {"color": color, "ls": dashes, "lw": 1.4}
    panels = (("loss", "training loss", 1.0), ("miou", "validation mIoU (%)", 100.0))
    with mpl.rc_context(SVG_SETTINGS):
        figure = Figure(figsize=(9, 0.4 + 2.2 * len(groups)), layout="constrained")
        rows = figure.subplots(len(groups), 2, squeeze=False)
        for row, ((method, backbone), tunings) in zip(rows, sorted(groups.items()), strict=True):
            for axes, (part, title, factor) in zip(row, panels, strict=True):
                for tuning, members in sorted(tunings.items()):
                    values: dict[float, list[float]] = defaultdict(list)
                    for curve in members:
                        for step, value in getattr(curve, part):
                            values[step].append(factor * value)
                    steps = sorted(values)
                    axes.plot(steps, [fmean(values[s]) for s in steps], label=shown(tuning), **styles[tuning])
                    if len(tunings) <= MOST_RANGES:
                        low, high = ([of(values[s]) for s in steps] for of in (min, max))
                        axes.fill_between(steps, low, high, color=styles[tuning]["color"], alpha=0.12, lw=0)
                name = f"{method}, {backbone}" if backbones[method] > 1 else method
                axes.set_title(f"{shown(name)}: {title}", fontsize="medium")
                axes.grid(alpha=0.15)
            row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
        for axes in rows[-1]:
            axes.set_xlabel("step")
        return as_svg(figure)


def draw_classes(columns: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """IoU of every class, a bar for each column.

    Args:
        columns: Name of each column, and its IoU (fractions) by class.
    """
    names = list(dict.fromkeys(name for _, classes in columns for name in classes))
    width = 0.8 / max(1, len(columns))
    with mpl.rc_context(SVG_SETTINGS):
        figure = Figure(figsize=(9, 1.2 + 0.045 * len(names) * max(4, len(columns))), layout="constrained")
        axes = figure.subplots()
        for i, (color, (label, classes)) in enumerate(zip(_cycle(len(columns)), columns, strict=True)):
            places = [row + (i - (len(columns) - 1) / 2) * width for row in range(len(names))]
            values = [100 * classes.get(name, 0.0) for name in names]
            axes.barh(places, values, width, color=color, label=shown(label))
        axes.set_yticks(range(len(names)), [shown(name) for name in names])
        axes.invert_yaxis()
        axes.set(xlabel="IoU (%)", xlim=(0, 100))
        axes.grid(axis="x", alpha=0.15)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return as_svg(figure)


def _cycle(count: int) -> list[str]:
    return [color_of(i) for i in range(count)]
