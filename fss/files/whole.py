"""Atomic writing of files: readers see a file complete or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OF_THE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ}
_NAMES = ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EISDIR", "EEXIST", "ENOENT")
_OF_WRITING = _OF_THE_NAME | {getattr(errno, name) for name in _NAMES if hasattr(errno, name)}
_SHORT = 100  # bytes of a name; with a longer one, the unfinished file's would be longer than names can be


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file that takes its name only when it is finished.

    Raises:
        OSError: It could not be written, as on a full disk; what had the name before is as it was.
    """
    unfinished = unfinished_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_name(path)
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        if error.errno not in _OF_WRITING:  # of something else that was tried meanwhile, or told already
            raise
        raise _not_written(path, error) from error
    finally:
        with suppress(OSError):  # a folder that cannot be written holds nothing of ours
            unfinished.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Tries whether a file could be written, before the work for it; leaves nothing behind.

    Raises:
        OSError: It could not; the message says why.
    """
    unfinished, made = unfinished_of(path), []
    try:
        made = [folder for folder in path.parents if not os.path.lexists(folder)]
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_name(path)
        unfinished.touch()
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        for folder in made:  # the innermost first
            with suppress(OSError):
                folder.rmdir()


def unfinished_of(path: Path) -> Path:
    """The name of a file while this process writes it; others may be writing it too."""
    encoded = os.fsencode(path.name)
    name = path.name if len(encoded) <= _SHORT else hashlib.sha256(encoded).hexdigest()[:32]
    return path.parent / f".{name}.{os.getpid()}.part"


def forget_unfinished(folder: Path) -> None:
    """Removes what killed processes left half written in a folder, into which nobody writes now."""
    for unfinished in folder.glob(".*.part"):
        unfinished.unlink(missing_ok=True)


class NotWrittenError(OSError):
    """A file that could not be written; its message says what to do."""

    def __init__(self, path: Path, reason: Exception, mend: str | None = None) -> None:
        super().__init__(
            f"{path} could not be written ({getattr(reason, 'strerror', None) or reason}): "
            + (
                mend
                or "is the disk full, or the folder not yours to write? What was there before is as it was; free "
                "some space and run the same command again"
            )
        )


class UnusableNameError(NotWrittenError):
    """A file that could not be written for its name, whatever the disk has room for."""


def _check_name(path: Path) -> None:
    """Raises an OSError if the name is a folder's, or longer than the file system takes."""
    with suppress(FileNotFoundError):
        path.lstat()
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def _not_written(path: Path, error: OSError) -> NotWrittenError:
    with suppress(OSError):
        if path.is_dir():
            return NotWrittenError(path, error, "it is a folder; name a file")
    if error.errno in _OF_THE_NAME:
        return UnusableNameError(path, error, "choose another name, of fewer letters")
    nearest = next((folder for folder in path.parents if os.path.lexists(folder)), None)
    if nearest is not None and not nearest.is_dir():
        error = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))  # whichever this has become
        return NotWrittenError(path, error, f"{nearest} is no folder; choose another place")
    return NotWrittenError(path, error)
