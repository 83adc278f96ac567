"""The finished episodes of an evaluation that is not finished, so that it can go on where it was stopped.

A line holds an episode's numbers and a checksum of them together with the evaluation's key, so that neither damage
nor another evaluation's line is taken for a result. What does not check is left out and evaluated anew.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from fss.files.whole import NotWrittenError, whole

logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One finished episode.

    Attributes:
        seed, id: Seed and id of the episode.
        intersection, union, background_intersection, background_union: Its result, in pixels.
        microseconds: Its share of the evaluation time, at least 1.
        steps: By which S was tuned for it; 0 without such tuning.
    """

    seed: int
    id: int
    intersection: int
    union: int
    background_intersection: int
    background_union: int
    microseconds: int
    steps: int = 0

    @property
    def is_possible(self) -> bool:
        """Whether an episode can give these numbers."""
        return (
            0 <= self.intersection <= self.union
            and 0 <= self.background_intersection <= self.background_union
            and self.microseconds >= 1
            and self.steps >= 0
            and max(self) < 2**63
        )

    @property
    def numbers(self) -> tuple[int, ...]:
        """The result in pixels, the time in microseconds, and the steps: what is not `seed` and `id`."""
        return self[2:]


class Journal:
    """Files of entries in a results folder, one per process.

    Args:
        folder: The results folder.
        key: Fingerprint of the evaluation; entries of other evaluations are ignored.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self._file: BinaryIO | None = None
        self._path: Path | None = None

    def read(self) -> list[Entry]:
        """The entries of all processes; what was cut short or damaged is left out with a warning."""
        return [entry for path in self._paths() for entry in self._entries(path)]

    def open(self, process: int) -> Self:
        """Prepares for new entries of a process, behind those that it already made.

        Raises:
            OSError: The folder cannot be written.
        """
        path = self.folder / f".unfinished-{process}"
        if not self._is_ours(path):
            with whole(path) as unfinished:  # another evaluation's
                unfinished.write_text(f"{self.key}\n")
        try:
            self._file, self._path = path.open("r+b", buffering=0), path
            # a line that was cut short would spoil the next one; nothing that is whole is written again
            content = path.read_bytes()
            self._file.truncate(content.rindex(b"\n") + 1)
            self._file.seek(0, 2)
        except OSError as error:
            raise NotWrittenError(path, error) from error
        return self

    def add(self, entry: Entry) -> None:
        """Writes an entry; it stays when the process ends any moment later.

        Raises:
            OSError: It could not be written; those before it stay.
        """
        assert self._file is not None, "call open first"
        assert self._path is not None
        line = self._line(entry)
        try:
            written = self._file.write(line)
            if written != len(line):
                self._file.write(line[written:])  # tells why it did not fit
        except OSError as error:
            raise NotWrittenError(self._path, error) from error

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

    def _is_ours(self, path: Path) -> bool:
        """Whether a file is of this evaluation: its head says so or, where that is damaged, any of its lines."""
        if not path.is_file():
            return False
        head, _, rest = path.read_bytes().partition(b"\n")
        return b"\n" in path.read_bytes() and (
            head == self.key.encode() or any(self._entry(line) for line in rest.split(b"\n"))
        )

    def _entries(self, path: Path) -> list[Entry]:
        """Entries of a file of this evaluation; none of another's."""
        if not self._is_ours(path):
            return []
        *lines, last = path.read_bytes().split(b"\n")[1:]
        entries = [entry for line in lines if (entry := self._entry(line))]
        if damaged := len(lines) - len(entries) + bool(last):
            logger.warning(
                "%s: %d lines are cut short or damaged; these episodes are evaluated anew", path, damaged
            )
        return entries

    def _entry(self, line: bytes) -> Entry | None:
        """The entry of a line; None if it is none of this evaluation."""
        fields = line.split(b" ")
        if len(fields) != len(Entry._fields) + 1 or not all(field.isdigit() for field in fields[:-1]):
            return None
        if max(map(len, fields)) > 20:
            return None
        entry = Entry(*map(int, fields[:-1]))
        return entry if entry.is_possible and line + b"\n" == self._line(entry) else None

    def _line(self, entry: Entry) -> bytes:
        numbers = " ".join(map(str, entry))
        check = hashlib.blake2b(f"{self.key} {numbers}".encode(), digest_size=8).hexdigest()
        return f"{numbers} {check}\n".encode()
