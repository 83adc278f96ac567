"""Processes that end with the one that started them, however that one ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

SECONDS = 1.0  # between two looks


def end_with_parent() -> None:
    """Ends this process soon after its parent has ended, as by a signal that leaves it no time to tell anybody.

    A child of `multiprocessing` alone would wait for ever: its brothers keep the pipes open that it reads from. A
    death signal of the kernel would be quicker, but Linux alone has one, and sends it when the thread that
    started the child ends.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        raise RuntimeError("this process was not started by multiprocessing")
    threading.Thread(target=_watch, args=(parent.pid,), name="end with parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS)
    os._exit(1)  # nobody is left to whom anything could be said
