"""Indices cached in `.fss-cache` beside the data; deleting the folder only costs another scan.

A cached index is valid as long as the set of files and each file's size and modification time are unchanged.
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
_FORMAT = 1  # changing this invalidates all existing files


def fingerprint(classes: Sequence[str], files: Iterable[str | Path]) -> str:
    """Hash of all that an index depends on: class names, and each file's path, size and modification time."""
    found = hashlib.sha256(repr((_FORMAT, tuple(classes))).encode())
    for file in files:
        try:
            info = os.stat(file)
            state = f"{info.st_size}\0{info.st_mtime_ns}"
        except OSError:  # the scan will report the file
            state = "absent"
        found.update(f"{file}\0{state}\n".encode(errors="surrogateescape"))
    return found.hexdigest()


def load(path: Path, key: str, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Loads the columns (of equal length) saved with this key; None if there are none."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["key"]) != key:
                return None
            columns = {name: saved[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        logger.warning("%s is damaged and will be rebuilt", path)
        return None
    return columns if len({column.shape for column in columns.values()}) == 1 else None


def save(path: Path, key: str, columns: Mapping[str, np.ndarray]) -> None:
    """Saves columns; if the folder is not writable, logs a message and continues."""
    try:
        with whole(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, key=np.array(key), **columns)  # type: ignore[arg-type]
    except OSError as error:
        logger.info("the index is not cached, because %s cannot be written: %s", path, error)
