"""Tables printed by an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fss.display.shown import shown
from fss.evaluation.results import Spread, spread

_SUPPORTS = {
    "box": "supports as boxes",
    "box_published": "supports as boxes",
    "empty": "control: supports without a mask",
    "inverted": "control: supports with inverted masks",
    "other_class": "control: supports of another class",
}
_KEYS = ("miou", "fb_iou")


def evaluation_table(metrics: Mapping[str, Any]) -> Group:
    """The scores of one evaluation, one row per class."""
    seeds = metrics["seeds"]
    where = f"{metrics['dataset']}, fold {metrics['fold']}"
    if metrics["train_dataset"] != metrics["dataset"]:
        where = f"{metrics['dataset']}, classes new to fold {metrics['fold']} of {metrics['train_dataset']}"
    how = f"{_which(metrics)}protocol {metrics['protocol']}: {metrics['episodes']} episodes"
    how += f" x {len(seeds)} seeds" if len(seeds) > 1 else f", seed {metrics['eval_seeds'][0]}"
    how += f", {metrics['eval_classes']} classes" if metrics["eval_classes"] != "novel" else ""
    how += supports_told(metrics)
    table = Table("")
    _add_columns(table, "IoU", len(seeds) > 1)
    table.add_column("episodes", justify="right")
    for name in metrics["classes"]:
        own = [seed["classes"][name] for seed in seeds if name in seed["classes"]]
        cells = _cells(spread([scores["iou"] for scores in own]), len(seeds) > 1)
        episodes = str(sum(scores["episodes"] for scores in own))
        table.add_row(Text(shown(name)), *cells, episodes)  # not parsed as markup
    table.add_section()
    for label, key in (("mIoU", "miou"), ("FB-IoU", "fb_iou")):
        value = Spread(metrics[key], metrics[f"{key}_std"], metrics[f"{key}_interval"])
        table.add_row(label, *_cells(value, len(seeds) > 1), "", style="bold" if key == "miou" else None)
    notes = [] if metrics["selection"] == "none" else ["This checkpoint was selected on the test classes."]
    empty = {name for seed in seeds for name, scores in seed["classes"].items() if not scores["episodes"]}
    if counted := [name for name in metrics["classes"] if name in empty]:
        notes.append(f"Counted as 0 where no episode asks for it: {', '.join(counted)}.")
    return Group(f"{where}, {_what(metrics)}", how, table, *notes)


def supports_told(metrics: Mapping[str, Any]) -> str:
    """What supports show, as ", ..."; nothing if it is their masks."""
    annotation = metrics["support_annotation"]
    return "" if annotation == "mask" else f", {_SUPPORTS.get(annotation, annotation)}"


def folds_table(folds: Sequence[Mapping[str, Any]]) -> Group:
    """mIoU and FB-IoU of evaluations that differ only in their fold, and the mean over the folds."""
    first = folds[0]
    several = len(first["eval_seeds"]) > 1
    table = Table("fold")
    _add_columns(table, "mIoU", several)
    _add_columns(table, "FB-IoU", several)
    for fold in folds:
        cells = (_cells(Spread(fold[k], fold[f"{k}_std"], fold[f"{k}_interval"]), several) for k in _KEYS)
        table.add_row(str(fold["fold"]), *(cell for part in cells for cell in part))
    table.add_section()
    means = (_cells(spread(mean_of_folds(folds, key)), several) for key in _KEYS)
    table.add_row("mean", *(cell for part in means for cell in part), style="bold")
    return Group(
        f"{first['dataset']}, {_what(first)}",
        f"{_which(first)}protocol {first['protocol']}",
        table,
    )


def tuning_told(metrics: Mapping[str, Any]) -> str:
    """The tuning, or "training-free" if nothing was trained at all; and what the evaluation changed."""
    tuning = metrics["tuning"] if metrics["trained_parameters"] != 0 else "training-free"
    tuning = f"{tuning} + adapt" if metrics.get("adapt") else tuning
    return ", ".join([tuning, *metrics.get("changed", ())])


def changes(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """What an evaluation does that its run does not, as words: "adapt", "size-321"; not in older results."""
    return (*["adapt"] * bool(metrics.get("adapt")), *metrics.get("changed", ()))


def _what(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['shot']}-shot, {metrics['method']}, {tuning_told(metrics)}, {metrics['backbone']}"


def _which(metrics: Mapping[str, Any]) -> str:
    return f"checkpoint {metrics['checkpoint']}, " if metrics["trained_parameters"] != 0 else ""


def mean_of_folds(folds: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """Mean of "miou" or "fb_iou" over the folds, for each seed."""
    return [sum(seeds) / len(folds) for seeds in zip(*([s[key] for s in f["seeds"]] for f in folds), strict=True)]


def _add_columns(table: Table, name: str, several: bool) -> None:
    for heading in (name, "sd", "95 % interval") if several else (name,):
        table.add_column(heading, justify="right")


def _cells(value: Spread, several: bool) -> list[str]:
    if not several:
        return [f"{value.mean:.3f}"]
    low_high = f"{value.interval[0]:.3f} to {value.interval[1]:.3f}" if value.interval else ""
    return [f"{value.mean:.3f}", "" if value.std is None else f"{value.std:.3f}", low_high]
