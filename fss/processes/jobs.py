"""Runs commands in separate processes that leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def run_alone(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Runs a command in its own session, kills all processes it leaves behind, and returns its exit code.

    Raises:
        SystemExit: If this process, and hence the command, has received a signal to stop.
    """
    job = subprocess.Popen(command, start_new_session=True, env=environment)
    with _passing_on(job.send_signal) as received, _guarded(job.pid):
        try:
            code = job.wait()
        finally:
            with suppress(ProcessLookupError):  # no process is left
                os.killpg(job.pid, signal.SIGKILL)
    if received:
        raise SystemExit(code if code > 0 else 128 + received[-1])
    return code


@contextmanager
def _guarded(session: int) -> Iterator[None]:
    """Has all processes of a session killed if this process is itself killed within the block.

    A guard reads from a pipe, which the operating system closes when its only writer, this process, has ended.
    """
    guard = subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -KILL "-$0"', str(session)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # or Ctrl-C would end it first
    )
    try:
        yield
    finally:
        guard.kill()
        guard.wait()
        assert guard.stdin is not None
        guard.stdin.close()


@contextmanager
def _passing_on(send: Callable[[int], None]) -> Iterator[list[int]]:
    """Passes signals that stop a sweep to `send`; yields the list of those received."""
    received: list[int] = []

    def handle(number: int, _: Any) -> None:
        received.append(number)
        send(number)

    heeded = [number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
