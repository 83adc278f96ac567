"""The interface of a data set: numbered pictures with label maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Reader(Protocol):
    """One set of labelled pictures.

    Attributes:
        classes: Class names; class ids are 1-based, so class c is `classes[c - 1]`.
    """

    @property
    def classes(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Name of a picture for messages and results: its file, if there is one, made `printable`."""
        ...

    def image(self, index: int) -> np.ndarray:
        """Reads a picture: (h, w, 3) uint8 RGB."""
        ...

    def mask(self, index: int) -> np.ndarray:
        """Reads a label map: (h, w) uint8 class ids, 0 background, 255 ignored.

        With more than 254 classes it is uint16, with 65535 for ignored pixels.
        """
        ...


@runtime_checkable
class FileReader(Reader, Protocol):
    """A reader of files, which can be checked in advance and whose index can be cached.

    Attributes:
        cache: File in which the index is cached.
    """

    @property
    def cache(self) -> Path: ...

    def size(self, index: int) -> tuple[int, int]:
        """Returns the (h, w) of `image` without decoding it.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a picture.
        """
        ...

    def pictures(self) -> Iterable[str | Path]:
        """The file of each picture, in their order."""
        ...

    def files(self) -> Iterable[str | Path]:
        """All files from which pictures and masks are read."""
        ...


@runtime_checkable
class RemarkingReader(Reader, Protocol):
    """A reader that knows of things that are odd, but can be used."""

    def remark(self, index: int, mask: np.ndarray) -> str:
        """What to tell of a picture, with its name; empty if nothing.

        Args:
            index: Of the picture.
            mask: As `mask` gives it.
        """
        ...


def checked_reader(made: object) -> Reader:
    """What a reader's settings have made, if it is one.

    Raises:
        ValueError: It lacks something that readers have.
    """
    if isinstance(made, Reader):
        return made
    parts = ("classes", "__len__", "name", "image", "mask")
    lacking = [part for part in parts if not hasattr(made, part)]
    raise ValueError(
        f"{type(made).__module__}.{type(made).__qualname__} is no reader, it has no {', '.join(lacking)}: give it "
        "what fss.data.readers.reader.Reader has, or name another class as _target_ of dataset.train_reader and "
        "dataset.eval_reader"
    )
