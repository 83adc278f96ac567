"""The finished episodes of an evaluation that is not finished, so that it can go on where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Self, TextIO


class Entry(NamedTuple):
    """One finished episode.

    Attributes:
        seed, id: Which episode.
        intersection, union, background_intersection, background_union: What it gave.
        microseconds: Its part of the time that the evaluation took, at least 1.
    """

    seed: int
    id: int
    intersection: int
    union: int
    background_intersection: int
    background_union: int
    microseconds: int

    @property
    def numbers(self) -> tuple[int, int, int, int, int]:
        """What it gave and how long it took."""
        background = self.background_intersection, self.background_union
        return self.intersection, self.union, *background, self.microseconds


class Journal:
    """Files of entries in a results folder, one a process.

    Args:
        folder: The results folder.
        key: Of the evaluation: entries of another are not read.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self._file: TextIO | None = None

    def read(self) -> list[Entry]:
        """The entries of all processes; a last line that was cut short is left out."""
        lines = [line for path in self._paths() for line in self._whole_lines(path)[1:]]
        return [Entry(*map(int, line.split())) for line in lines]

    def open(self, process: int) -> Self:
        """Prepares for new entries of a process, behind those that it already made."""
        path = self.folder / f".unfinished-{process}"
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = self._whole_lines(path) or [self.key]
        path.write_text("".join(f"{line}\n" for line in lines))  # without a line cut short
        self._file = path.open("a")
        return self

    def add(self, entry: Entry) -> None:
        """Writes an entry; it stays when the process ends any moment later."""
        assert self._file is not None, "call open first"
        self._file.write(" ".join(map(str, entry)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Writes no more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Deletes the entries of all processes: the evaluation is finished."""
        for path in self._paths():
            path.unlink()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(".unfinished-*"))

    def _whole_lines(self, path: Path) -> list[str]:
        """Lines of a file of this evaluation, the key first; none of another's."""
        if not path.is_file():
            return []
        lines = path.read_text().split("\n")[:-1]  # what follows the last line break was cut short
        return lines if lines and lines[0] == self.key else []
