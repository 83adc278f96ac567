"""Atomic writing of files: readers see a file complete or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OF_WRITING = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EEXIST", "ENOENT")
    if hasattr(errno, name)
}


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file that takes its name only when it is finished.

    Raises:
        OSError: It could not be written, as on a full disk; what had the name before is as it was.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")  # other processes may be writing it too
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        if error.errno not in _OF_WRITING:  # of something else that was tried meanwhile, or told already
            raise
        raise NotWrittenError(path, error) from error
    finally:
        with suppress(OSError):  # a folder that cannot be written holds nothing of ours
            unfinished.unlink(missing_ok=True)


def forget_unfinished(folder: Path) -> None:
    """Removes what killed processes left half written in a folder, into which nobody writes now."""
    for unfinished in folder.glob(".*.part"):
        unfinished.unlink(missing_ok=True)


class NotWrittenError(OSError):
    """A file that could not be written; its message says what to do."""

    def __init__(self, path: Path, reason: Exception) -> None:
        super().__init__(
            f"{path} could not be written ({reason}): is the disk full, or the folder not yours to write? What "
            "was there before is as it was; free some space and run the same command again"
        )
