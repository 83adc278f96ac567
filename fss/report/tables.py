"""Tables that compare runs on the same episodes: a column for each method, tuning, backbone and set of weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any, Literal, NamedTuple

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from fss.evaluation.results import Spread, spread
from fss.evaluation.tables import supports_told, tuning_told
from fss.report.escape import without_places
from fss.report.found import Evaluation

# Runs can share a table if they agree in these: the same episodes of the same classes.
_EPISODES = ("dataset", "fold", "shot", "eval_classes", "support_annotation", "protocol", "episodes", "eval_seeds")
USUAL_RECIPE = "svf"  # the default of `recipe=`
Unit = Literal["fraction", "seconds", "count"]
Cell = Spread | None


class Row(NamedTuple):
    """One row of a table, with one value per column; None if it is unknown."""

    label: str
    unit: Unit
    cells: list[Cell]


class Column(NamedTuple):
    """Runs that differ only in their training seed.

    Attributes:
        heading: Lines that distinguish this column from the others.
        evaluations: One evaluation per training seed.
    """

    heading: tuple[str, ...]
    evaluations: list[Evaluation]


class Comparison(NamedTuple):
    """One table, whose last column has the best mIoU.

    Attributes:
        title: Description of what all its runs share.
        note: Description of the evaluation.
        columns: Columns of the table.
        classes: Rows with the IoU of each class.
        summary: Rows with mIoU, FB-IoU, times and number of trained parameters.
    """

    title: str
    note: str
    columns: list[Column]
    classes: list[Row]
    summary: list[Row]


class Matrix(NamedTuple):
    """mIoU (mean over folds) for each method and tuning.

    Attributes:
        title: Description of what all its runs share.
        tunings: Column headings.
        methods: Rows with one cell per tuning; a cell also names its folds ("folds 0, 1") if these differ.
    """

    title: str
    tunings: list[str]
    methods: dict[str, list[tuple[Spread, str] | None]]


_SUMMARY: tuple[tuple[str, str, Unit], ...] = (
    ("mIoU", "miou", "fraction"),
    ("FB-IoU", "fb_iou", "fraction"),
    ("training (s)", "train_seconds", "seconds"),
    ("evaluation (s)", "test_seconds", "seconds"),
    ("parameters trained", "trained_parameters", "count"),
)


def comparisons(evaluations: Iterable[Evaluation]) -> list[Comparison]:
    """Builds one table for each set of evaluations with the same data, classes and episodes."""
    groups = _grouped(evaluations, lambda e: tuple(str(e.metrics[key]) for key in _EPISODES))
    return [_comparison(members) for _, members in sorted(groups.items())]


def matrices(evaluations: Iterable[Evaluation]) -> list[Matrix]:
    """Builds a matrix wherever there are two methods or tunings; untrained methods are included in each."""
    shared = [key for key in _EPISODES if key != "fold"]
    by_episodes = _grouped(evaluations, lambda e: tuple(str(e.metrics[key]) for key in (*shared, "backbone")))
    made = []
    for _, members in sorted(by_episodes.items()):
        untrained = [e for e in members if not is_trained(e.metrics)]
        trained = _grouped((e for e in members if is_trained(e.metrics)), _circumstances)
        made += [_matrix([*of_one_kind, *untrained]) for _, of_one_kind in sorted(trained.items())]
    return [matrix for matrix in made if len(matrix.methods) > 1 or len(matrix.tunings) > 1]


def show(cell: Cell, unit: Unit, percent: bool = False) -> str:
    """Formats a cell: a single value, or the mean and standard deviation of several.

    Args:
        cell: The values; None gives "-".
        unit: Unit of the values.
        percent: Show fractions in percent.
    """
    if cell is None:
        return "-"
    factor = 100 if unit == "fraction" and percent else 1
    style = {"fraction": ".1f" if percent else ".3f", "seconds": ".0f", "count": ",.0f"}[unit]
    mean = format(factor * cell.mean, style)
    return mean if not cell.std else f"{mean} ± {format(factor * cell.std, style)}"


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Prints a comparison, split into as many tables as the terminal's width requires."""
    console.print(comparison.title, comparison.note, sep="\n", highlight=False, style="italic")
    for table in _tables_within(console, comparison, range(len(comparison.columns))):
        console.print(table)


def _tables_within(console: Console, comparison: Comparison, columns: range) -> list[Table]:
    table = _terminal_table(comparison, columns)
    needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    if len(columns) == 1 or needed <= console.width:
        return [table]
    middle = columns.start + len(columns) // 2
    halves = range(columns.start, middle), range(middle, columns.stop)
    return [table for half in halves for table in _tables_within(console, comparison, half)]


def _terminal_table(comparison: Comparison, columns: range) -> Table:
    table = Table("")
    for i in columns:
        table.add_column("\n".join(comparison.columns[i].heading), justify="right", no_wrap=True)
    for row in (*comparison.classes, *comparison.summary):
        if is_first := row is comparison.summary[0]:
            table.add_section()
        table.add_row(
            row.label, *(show(row.cells[i], row.unit) for i in columns), style="bold" if is_first else None
        )
    return table


def is_trained(metrics: dict[str, Any]) -> bool:
    """Whether anything was trained; False for the prior mask."""
    return metrics["trained_parameters"] != 0


def _grouped(evaluations: Iterable[Evaluation], key: Any) -> dict[Any, list[Evaluation]]:
    groups: dict[Any, list[Evaluation]] = defaultdict(list)
    for evaluation in evaluations:
        groups[key(evaluation)].append(evaluation)
    return groups


def _circumstances(evaluation: Evaluation) -> tuple[str, ...]:
    """Facts that distinguish runs with the same method, tuning and backbone; often just the selected weights."""
    m = evaluation.metrics
    told = [_weights(evaluation)]
    if m["train_dataset"] != m["dataset"]:
        told.append(f"trained on {m['train_dataset']}")
    if m["train_shot"] != m["shot"]:
        told.append(f"trained with {m['train_shot']}-shot")
    if not m["config"]["dataset"].get("exclude_novel", True):
        told.append("original data")
    if m.get("recipe") not in (None, USUAL_RECIPE):
        told.append(f"recipe {m['recipe']}")
    return (*told, *map(without_places, evaluation.run.typed_settings if evaluation.run else ()))


def _comparison(evaluations: list[Evaluation]) -> Comparison:
    groups = _grouped(
        evaluations,
        lambda e: (
            *(e.metrics["method"], tuning_told(e.metrics), e.metrics["backbone"]),
            _circumstances(e) if is_trained(e.metrics) else (),
        ),
    )
    ordered = sorted(groups.items(), key=lambda item: fmean(e.metrics["miou"] for e in item[1]))
    # what all columns share goes into the title, so that several columns fit into 80 characters
    general = [[backbone, _seeds(members)] for (_, _, backbone, _), members in ordered]
    of_training = [list(circumstances) for (_, _, _, circumstances), _ in ordered]
    shared = [*_common(general), *_common([facts for facts in of_training if facts])]
    columns = [
        Column((method, tuning, *(fact for fact in (*facts, *more) if fact not in shared)), members)
        for ((method, tuning, *_), members), facts, more in zip(ordered, general, of_training, strict=True)
    ]
    metrics = [[e.metrics for e in column.evaluations] for column in columns]
    names = dict.fromkeys(name for column in metrics for m in column for name in m["classes"])
    first = metrics[0][0]
    title = [f"{first['dataset']}, fold {first['fold']}, {first['shot']}-shot", *shared]
    classes = {
        name: [_cell([m["classes"].get(name, {}).get("iou") for m in c]) for c in metrics] for name in names
    }
    return Comparison(
        title=", ".join(title),
        note=_note(first),
        columns=columns,
        classes=[Row(name, "fraction", cells) for name, cells in classes.items()],
        summary=[Row(label, unit, [_cell([m[key] for m in c]) for c in metrics]) for label, key, unit in _SUMMARY],
    )


def _common(lists: Sequence[Sequence[str]]) -> list[str]:
    return [fact for fact in lists[0] if all(fact in other for other in lists)] if lists else []


def _matrix(evaluations: list[Evaluation]) -> Matrix:
    groups = _grouped(evaluations, lambda e: (e.metrics["method"], tuning_told(e.metrics)))
    methods, tunings = (sorted({key[i] for key in groups}) for i in range(2))
    covered = {key: sorted({e.metrics["fold"] for e in members}) for key, members in groups.items()}
    is_shared = len({tuple(folds) for folds in covered.values()}) == 1
    cells = {
        key: (_mean_over_folds(members), "" if is_shared else _folds(covered[key]))
        for key, members in groups.items()
    }
    first = evaluations[0]
    m = first.metrics
    facts = [f"{m['dataset']}, {m['shot']}-shot, {m['backbone']}", *_circumstances(first)]
    facts += [_folds(next(iter(covered.values())))] if is_shared else []
    return Matrix(
        title=f"{', '.join(facts)}: {_note(m)}",
        tunings=tunings,
        methods={method: [cells.get((method, tuning)) for tuning in tunings] for method in methods},
    )


def _mean_over_folds(evaluations: list[Evaluation]) -> Spread:
    """Spread over the training seeds that have all folds or, if none has, the mean of the folds' means."""
    folds = {e.metrics["fold"] for e in evaluations}
    of_seed: dict[int, dict[int, float]] = defaultdict(dict)
    of_fold: dict[int, list[float]] = defaultdict(list)
    for evaluation in evaluations:
        m = evaluation.metrics
        of_seed[m["seed"]][m["fold"]] = m["miou"]
        of_fold[m["fold"]].append(m["miou"])
    complete = [fmean(values.values()) for values in of_seed.values() if len(values) == len(folds)]
    return spread(complete or [fmean(fmean(values) for values in of_fold.values())])


def _note(metrics: dict[str, Any]) -> str:
    seeds = metrics["eval_seeds"]
    told = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))} each"
    return (
        f"IoU of {metrics['eval_classes']} classes over {metrics['episodes']} episodes "
        f"({told}; protocol {metrics['protocol']}){supports_told(metrics)}"
    )


def _weights(evaluation: Evaluation) -> str:
    """Describes how the weights were selected."""
    chosen = evaluation.metrics["selection"]
    if evaluation.weights == "file":
        return "checkpoint file"
    return "last weights" if chosen == "none" else f"{evaluation.weights} on {chosen}"


def _seeds(column: Sequence[Evaluation]) -> str:
    return f"seed {column[0].metrics['seed']}" if len(column) == 1 else f"{len(column)} seeds"


def _folds(folds: Sequence[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def _cell(values: list[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    return spread(known) if known and len(known) == len(values) else None
