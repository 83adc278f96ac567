"""Atomic writing of files (readers see a file complete or not at all), and digests that identify lists of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to; the file is moved to `path` once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")  # other processes may be writing it too
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def digest(lines: Iterable[str]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the lines joined by newlines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def stem(name: str) -> str:
    """A picture's file name without its folder and suffix, as used in lists."""
    return Path(name).stem
