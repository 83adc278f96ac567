"""Indices kept in `.fss-cache` beside the data; deleting the folder costs another scan and nothing else.

An index is good as long as the same files are there, none of them of another size or time than when it was made.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fss.files import whole
from fss.text import printable

logger = logging.getLogger(__name__)

FOLDER = ".fss-cache"
_FORMAT = 2  # another number makes all earlier files stale


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
    """The arrays that were saved with this key; None where there are none, or where they are damaged."""
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
        logger.warning("%s is damaged (%s) and made anew", printable(path), type(error).__name__)
        return None
    return arrays


def save(path: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Keeps arrays; where the folder cannot be written, says so and goes on."""
    try:
        with whole(path) as unfinished, unfinished.open("wb") as file:
            digest = np.array(_digest(key, arrays))
            np.savez(file, key=np.array(key), digest=digest, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        logger.info("the index is not kept, %s cannot be written: %s", printable(path), error)


def _digest(key: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Of everything: a zip's own checksums are not looked at when an array's header tells of fewer numbers."""
    found = hashlib.sha256(key.encode())
    for name, array in arrays.items():
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()
