"""Indices kept in `.fss-cache` beside the data; deleting the folder costs another scan and nothing else.

An index is good as long as the same files are there, none of them of another size or time than when it was made.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fss.files import whole

logger = logging.getLogger(__name__)

FOLDER = ".fss-cache"
_FORMAT = 1  # another number makes all earlier files stale


def fingerprint(classes: Sequence[str], files: Iterable[str | Path]) -> str:
    """What changes whenever the index may: class names, and each file's path, size and time."""
    found = hashlib.sha256(repr((_FORMAT, tuple(classes))).encode())
    for file in files:
        try:
            info = os.stat(file)
            state = f"{info.st_size}\0{info.st_mtime_ns}"
        except OSError:  # the scan will name the file
            state = "absent"
        found.update(f"{file}\0{state}\n".encode(errors="surrogateescape"))
    return found.hexdigest()


def load(path: Path, key: str, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Columns of equal length that were saved with this key; None where there are none."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["key"]) != key:
                return None
            columns = {name: saved[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        logger.warning("%s is damaged and made anew", path)
        return None
    return columns if len({column.shape for column in columns.values()}) == 1 else None


def save(path: Path, key: str, columns: Mapping[str, np.ndarray]) -> None:
    """Keeps columns; where the folder cannot be written, says so and goes on."""
    try:
        with whole(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, key=np.array(key), **columns)  # type: ignore[arg-type]
    except OSError as error:
        logger.info("the index is not kept, %s cannot be written: %s", path, error)
