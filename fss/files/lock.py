"""One process at a time in a folder: who it is, and whether it still lives.

The file `.lock` says who holds a folder. The operating system keeps the lock itself and lets go of it when the
process ends, in whatever way; so what a killed process of the same machine left behind is known to be stale. On
file systems that several machines share and that keep no locks among them, a holder that lives touches its file
every few seconds, and one that does not for a while is taken for dead.
"""

from __future__ import annotations

import atexit
import errno
import getpass
import json
import logging
import os
import socket
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from fss.display.shown import shown

try:
    import fcntl
except ImportError:  # no such locks on this system: the file's time alone tells
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

NAME = ".lock"
BEAT = 5.0  # seconds between two signs of life
PATIENCE = 20.0  # seconds without one, after which a holder on another machine is taken for dead

_held: dict[Path, _Held] = {}


class FolderInUseError(OSError):
    """Another process works in a folder."""


def hold(folder: Path, mend: str) -> None:
    """Takes a folder for this process until it ends or calls `release`; once more changes nothing.

    Args:
        folder: Is made where missing.
        mend: What somebody can do who wants to work in it now, besides waiting.

    Raises:
        FolderInUseError: Another process, here or on another machine, works in it; the message says which.
        OSError: The folder cannot be written.
    """
    place = folder.resolve() / NAME
    if place in _held and _held[place].pid == os.getpid():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _held[place] = _Held(place, mend)
    except FolderInUseError:
        raise
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error}): {mend}") from error


def release(folder: Path) -> None:
    """Lets others work in a folder."""
    if held := _held.pop(folder.resolve() / NAME, None):
        held.let_go()


class _Held:
    """A lock file that is ours."""

    def __init__(self, path: Path, mend: str) -> None:
        self.path, self._file = path, _open_and_lock(path, mend)
        self.pid = os.getpid()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, (json.dumps(_this_process()) + "\n").encode(), 0)
        self._ended = threading.Event()
        threading.Thread(target=self._live, name="lock", daemon=True).start()

    def let_go(self) -> None:
        if self.pid != os.getpid():  # of the process that forked this one
            return
        self._ended.set()
        self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _live(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                os.utime(self.path)
            except OSError:  # a disk that is away for a while is no reason to end
                continue


def _open_and_lock(path: Path, mend: str) -> int:
    """The opened lock file, which no other process holds."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            kernel_tells = _lock(file)
            if kernel_tells is False:
                raise FolderInUseError(_message(path, _owner(file), mend))
            owner = _owner(file)
            foreign = bool(owner) and not (kernel_tells and owner.get("host") == socket.gethostname())
            if foreign and _shows_life(path, owner):
                raise FolderInUseError(_message(path, owner, mend))
            if owner:
                logger.info("%s was left by %s, which has ended", path, _who(owner))
            # its holder may have removed it between our opening and locking it
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file)):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _lock(file: int) -> bool | None:
    """Whether the lock is ours; None where the file system keeps none."""
    if fcntl is None:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        return None
    return True


def _shows_life(path: Path, owner: dict[str, Any]) -> bool:
    """Whether a holder that may be on another machine touches its file while we look on."""
    before = path.stat().st_mtime_ns
    logger.warning("%s is held by %s: looking for %.0f s whether it lives", path, _who(owner), PATIENCE)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(min(1.0, PATIENCE / 10))
        try:
            if path.stat().st_mtime_ns != before:
                return True
        except FileNotFoundError:  # it has just ended
            return False
    return False


def _this_process() -> dict[str, Any]:
    try:
        owner = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        owner = str(os.getuid())
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"owner": owner, "host": socket.gethostname(), "pid": os.getpid(), "since": since}


def _owner(file: int) -> dict[str, Any]:
    """What a lock file says; nothing if it was left empty, and `unknown` if it cannot be read."""
    content = os.pread(file, 4096, 0)
    if not content.strip(b"\0 \n"):
        return {}
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        said = None
    return said if isinstance(said, dict) else {"owner": "unknown"}


def _who(owner: dict[str, Any]) -> str:
    return shown(
        f"process {owner.get('pid', '?')} of {owner.get('owner', '?')} on {owner.get('host', '?')}"
        f" (since {owner.get('since', '?')})"
    )


def _message(path: Path, owner: dict[str, Any], mend: str) -> str:
    return (
        f"{path.parent} is in use by {_who(owner)}: two at a time would overwrite each other. Wait until it has "
        f"ended, stop it, or {mend}. If there is no such process, delete {path}"
    )


@atexit.register
def _release_all() -> None:
    for held in _held.values():
        held.let_go()
