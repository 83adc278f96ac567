"""What a thing that the program reads has to offer to be tried with damaged inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from checks.fuzzing.mutations import damaged_bytes

Mutation = Callable[[bytes, np.random.Generator], bytes]


class Target(Protocol):
    """One kind of file as the program reads it.

    Attributes:
        name: In the table; unique.
        exact: Whether the format carries checks of its own. Damage must then be refused, or change nothing: an
            input that is accepted with another result counts as silent. Without such checks a changed number is
            just another number.
    """

    @property
    def name(self) -> str: ...

    @property
    def exact(self) -> bool: ...

    def write(self, folder: Path) -> Sequence[Path]:
        """Writes a sound example below an empty folder.

        Returns:
            The files to damage, one of them in each trial.
        """
        ...

    def mutate(self, content: bytes, rng: np.random.Generator) -> bytes:
        """The content of a file with some damage; all chance comes from `rng`."""
        ...

    def read(self, folder: Path) -> object:
        """Reads the example as the program does, and uses what it read.

        Returns:
            What was understood, in a form that `==` compares; anything where `exact` is False.

        Raises:
            ValueError, OSError: The refusal; its message names the damaged file.
        """
        ...


@dataclass(frozen=True)
class FileTarget:
    """A target made of plain functions; see `Target`.

    Attributes:
        name: See there.
        writes: `write`.
        reads: `read`.
        mutation: `mutate`.
        exact: See there.
    """

    name: str
    writes: Callable[[Path], Sequence[Path]]
    reads: Callable[[Path], object]
    mutation: Mutation = damaged_bytes
    exact: bool = False

    def write(self, folder: Path) -> Sequence[Path]:
        return self.writes(folder)

    def mutate(self, content: bytes, rng: np.random.Generator) -> bytes:
        return self.mutation(content, rng)

    def read(self, folder: Path) -> object:
        return self.reads(folder)
