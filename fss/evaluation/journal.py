"""Records the finished episodes of an unfinished evaluation, so that it can be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Self, TextIO


class Entry(NamedTuple):
    """One finished episode.

    Attributes:
        seed, id: Seed and id of the episode.
        intersection, union, background_intersection, background_union: Its result, in pixels.
        microseconds: Its share of the evaluation time, at least 1.
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
        """The result in pixels, and the time in microseconds."""
        background = self.background_intersection, self.background_union
        return self.intersection, self.union, *background, self.microseconds


class Journal:
    """Files of entries in a results folder, one per process.

    Args:
        folder: The results folder.
        key: Fingerprint of the evaluation; entries of other evaluations are ignored.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self._file: TextIO | None = None

    def read(self) -> list[Entry]:
        """Reads the entries of all processes, leaving out a truncated last line."""
        lines = [line for path in self._paths() for line in self._whole_lines(path)[1:]]
        return [Entry(*map(int, line.split())) for line in lines]

    def open(self, process: int) -> Self:
        """Opens a process's file to append entries to those already there."""
        path = self.folder / f".unfinished-{process}"
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = self._whole_lines(path) or [self.key]
        path.write_text("".join(f"{line}\n" for line in lines))  # drops a truncated line
        self._file = path.open("a")
        return self

    def add(self, entry: Entry) -> None:
        """Writes an entry, which is kept even if the process is killed right afterwards."""
        assert self._file is not None, "call open first"
        self._file.write(" ".join(map(str, entry)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Deletes the entries of all processes, once the evaluation is finished."""
        for path in self._paths():
            path.unlink()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(".unfinished-*"))

    def _whole_lines(self, path: Path) -> list[str]:
        """Complete lines of a file, starting with the key; none if it belongs to another evaluation."""
        if not path.is_file():
            return []
        lines = path.read_text().split("\n")[:-1]  # anything after the last line break is truncated
        return lines if lines and lines[0] == self.key else []
