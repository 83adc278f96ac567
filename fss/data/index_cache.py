"""Indices cached in `.fss-cache` beside the data; deleting the folder only costs another scan.

A cached index is valid as long as the set of files and each file's size and modification time are unchanged.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fss.files.text import printable
from fss.files.whole import whole

logger = logging.getLogger(__name__)

FOLDER = ".fss-cache"
_FORMAT = 2  # changing this invalidates all existing files


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
    """Loads the arrays saved with this key; None if there are none, or if they are damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["key"]) != key:
                return None
            arrays = {name: saved[name] for name in names}
            if str(saved["digest"]) != _digest(key, arrays):
                raise ValueError("checksum")
    except Exception as error:  # NumPy and zipfile raise many kinds for damaged files
        logger.warning("%s is damaged (%s) and will be rebuilt", printable(path), type(error).__name__)
        return None
    return arrays


def save(path: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Saves arrays; if the folder is not writable, logs a message and continues."""
    try:
        with whole(path) as unfinished, unfinished.open("wb") as file:
            digest = np.array(_digest(key, arrays))
            np.savez(file, key=np.array(key), digest=digest, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        logger.info("the index is not cached, because %s cannot be written: %s", printable(path), error)


def _digest(key: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Covers everything: a zip's own checksums are skipped if an array's header promises fewer numbers."""
    found = hashlib.sha256(key.encode())
    for name, array in arrays.items():
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()
