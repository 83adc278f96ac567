"""What a data set has to offer: pictures with label maps, by number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np


class Reader(Protocol):
    """One set of labelled pictures.

    Attributes:
        classes: Names; class id c, 1-based, is `classes[c - 1]`.
    """

    @property
    def classes(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call a picture in messages and results: its file, where there is one, in characters that can be
        written (`printable`)."""
        ...

    def image(self, index: int) -> np.ndarray:
        """(h, w, 3) uint8, RGB."""
        ...

    def mask(self, index: int) -> np.ndarray:
        """(h, w) uint8: class ids, 0 background, 255 ignored; uint16 for more classes, 65535 ignored."""
        ...


@runtime_checkable
class FileReader(Reader, Protocol):
    """A reader of files: they can be checked before they are used, and what was found be kept.

    Attributes:
        cache: File to keep the index in.
    """

    @property
    def cache(self) -> Path: ...

    def size(self, index: int) -> tuple[int, int]:
        """(h, w) that `image` would have, without decoding it.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no picture.
        """
        ...

    def pictures(self) -> Iterable[str | Path]:
        """The file of each picture, in their order."""
        ...

    def files(self) -> Iterable[str | Path]:
        """All files that pictures and masks are made from."""
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
