"""Published numbers of later papers, to be read beside those of this program, which does not reproduce them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from fss.display.shown import shown
from fss.files.plain import read_yaml
from fss.report.claims import FILE


class LaterRow(NamedTuple):
    """A published row: mean mIoU in percent over the folds by number of shots, None where it was not found."""

    dataset: str
    backbone: str
    method: str
    source: str
    miou: dict[int, float | None]


class Later(NamedTuple):
    """All of them.

    Attributes:
        note: What they are not.
        ours: The command line, by data set, for a number of this program to put beside them.
        rows: The rows, in the order of the file.
    """

    note: str
    ours: dict[str, str]
    rows: list[LaterRow]


def load_later(file: Path = FILE) -> Later:
    """Loads the rows of later papers.

    Raises:
        ValueError: If the file does not contain any, or one without its source.
    """
    try:
        content = read_yaml(file)["later"]
        rows = [
            LaterRow(dataset, backbone, method, content["sources"][row["source"]], {s: row[s] for s in (1, 5)})
            for row in content["rows"]
            for dataset, backbone, method in [row["row"]]
        ]
        later = Later(content["note"], content["ours"], rows)
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} contains no later papers ({type(error).__name__}: {shown(error)})") from error
    if odd := [row for row in later.rows if not _is_sound(row)]:
        raise ValueError(f"{file} contains a row that is none: {shown(odd[0])}")
    return later


def _is_sound(row: LaterRow) -> bool:
    known = [value for value in row.miou.values() if value is not None]
    return all(isinstance(text, str) for text in row[:4]) and all(
        isinstance(value, int | float) and 0 <= value <= 100 for value in known
    )


def print_later(console: Console, later: Later) -> None:
    """Prints the note, the table, its sources and the command lines for this program's own numbers."""
    table = Table("data set", "backbone", "method")
    for heading in ("1-shot", "5-shot", "source"):
        table.add_column(heading, justify="right")
    sources = list(dict.fromkeys(row.source for row in later.rows))
    for row in later.rows:
        numbers = ("-" if value is None else f"{value:.1f}" for value in row.miou.values())
        table.add_row(row.dataset, row.backbone, row.method, *numbers, str(sources.index(row.source) + 1))
    console.print(later.note, soft_wrap=True, highlight=False)
    console.print(table)
    for number, source in enumerate(sources, start=1):
        console.print(f"{number}: {source}", soft_wrap=True, highlight=False)
    console.print("Ours, to put beside them:", highlight=False)
    for line in later.ours.values():
        console.print(f"  {line}", soft_wrap=True, highlight=False)
