"""Pictures whose classes are counted as another set of pictures counts them: matched by name, never by place."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fss.data.readers.reader import FileReader, RemarkingReader
from fss.files.text import some
from fss.labels import ignored


class Matched:
    """A reader with the classes of another one.

    Args:
        reader: Where pictures and masks come from.
        classes: The other's classes, which may be more than the reader's.
        here: What to call the reader in messages.
        there: What to call the other.

    Raises:
        ValueError: The reader has classes that the other does not have; the message names them.
    """

    def __init__(self, reader: FileReader, classes: Sequence[str], here: str, there: str) -> None:
        if unknown := [name for name in reader.classes if name not in classes]:
            raise ValueError(
                f"{here} has classes that {there} does not have: {some(unknown)}; classes are matched by name, so "
                f"call them alike, or add them to the classes of {there}"
            )
        self.classes = tuple(classes)
        self.own_classes = tuple(reader.classes)
        self._reader = reader
        self._ids = np.array([0, *(self.classes.index(name) + 1 for name in reader.classes)])
        told = hashlib.sha256(repr((self.own_classes, self.classes)).encode()).hexdigest()[:12]
        self.cache = reader.cache.with_name(f"{reader.cache.stem}-{told}.npz")

    def __len__(self) -> int:
        return len(self._reader)

    def name(self, index: int) -> str:
        return self._reader.name(index)

    def image(self, index: int) -> np.ndarray:
        return self._reader.image(index)

    def mask(self, index: int) -> np.ndarray:
        mask = self._reader.mask(index)
        skipped = ignored(mask)
        own = np.where(skipped, 0, mask)
        if own.max() >= len(self._ids):
            n = len(self.own_classes)
            raise ValueError(
                f"{self.name(index)}: its mask has class id {own.max()}, but there are {n} classes: fix the mask"
            )
        matched = self._ids[own].astype(mask.dtype)
        matched[skipped] = np.iinfo(mask.dtype).max
        return matched

    def size(self, index: int) -> tuple[int, int]:
        return self._reader.size(index)

    def pictures(self) -> list[str | Path]:
        return list(self._reader.pictures())

    def files(self) -> list[str | Path]:
        return list(self._reader.files())

    def remark(self, index: int, mask: np.ndarray) -> str:
        if not isinstance(self._reader, RemarkingReader):
            return ""
        return self._reader.remark(index, self._reader.mask(index))
