"""Processes that others start: they end with them, and nothing waits for ever for one that has died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT, warm

LOADER = """
import os, resource, signal, sys, time
import torch
from fss.data.loading import build_loader, training_loader
from fss.data.picture_cache import PictureCache

class Things:
    def __init__(self, at=-1, act=None):
        self.at, self.act = at, act
    def __len__(self):
        return 8
    def __getitem__(self, number):
        if number == self.at:
            self.act()
        return [torch.zeros(100, 100) for _ in range(30)]

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def first(loader, batches=1):
    it = iter(loader)
    for _ in range(batches):
        next(it)
    return it

def only(batch):
    return batch[0]
"""
CASES = {
    # an error while a loader is alive, its worker idle, busy or waiting for what will not come
    "error": (
        "it = iter(build_loader(list(range(8)), range(8), 1, 1)); next(it); raise RuntimeError('mine')",
        "mine",
    ),
    "busy": (
        "things = Things(3, lambda: time.sleep(1000));"
        "it = first(build_loader(things, range(8), 1, 2, only)); raise RuntimeError('mine')",
        "mine",
    ),
    "persistent": (
        "it = first(training_loader(Things(), range(8), 1, 2, only), 8); raise RuntimeError('mine')",
        "mine",
    ),
    "exit": ("it = first(build_loader(Things(), range(8), 1, 2, only)); sys.exit('mine')", "mine"),
    # a worker that dies
    "killed": ("first(build_loader(Things(3, kill), range(8), 1, 2, only), 8)", "dataset.num_workers"),
    "killed, persistent": (
        "first(training_loader(Things(3, kill), range(8), 1, 2, only), 8)",
        "dataset.num_workers",
    ),
    # too few open files: for the batches, for the processes
    "files": (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40));"
        "first(build_loader(Things(), range(8), 1, 4, only), 8)",
        "ulimit -n",
    ),
    "more files": (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40));"
        "its = [first(build_loader(Things(), range(8), 1, 4, only)) for _ in range(5)]",
        "ulimit -n",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_nothing_hangs(case: str) -> None:
    script, said = CASES[case]
    done = warm.run("-c", LOADER + script, cwd=ROOT, timeout=30 + 15)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Exception ignored" not in done.stderr


def test_cache_goes_on_without_a_process_that_died_with_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from fss.data import picture_cache

    monkeypatch.setattr(picture_cache, "PATIENCE", 0.1)
    cache = picture_cache.PictureCache(1000)
    shelf = cache.shelf(2)
    child = os.fork()
    if not child:
        cache._lock.acquire()
        os._exit(0)
    os.waitpid(child, 0)
    began = time.monotonic()
    for _ in range(50):
        assert shelf.get(0, lambda _: np.ones((2, 2), np.uint8)).sum() == 4
    assert time.monotonic() - began < 3  # it has waited once


def children(marker: str) -> list[int]:
    """Processes that carry a mark in their environment."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                state = (place / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and marker.encode() in (place / "environ").read_bytes():
                    found.append(int(place.name))
            except OSError:
                continue
    return found


def wait_for(condition: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def marker() -> Iterator[str]:
    mark = f"FSS_TEST_MARK={os.getpid()}-{time.monotonic_ns()}"
    yield mark
    for pid in children(mark):
        os.kill(pid, signal.SIGKILL)


POOL = """
import time
from fss.data.parallel import for_each
def work(number):
    if number > 3:
        time.sleep(100)
    return number
if __name__ == "__main__":
    for_each(work, range(100), 3, "Working")
"""
SWEEP = """
import sys
from fss.processes.jobs import run_alone
run_alone([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '100'])"])
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to look for processes")
@pytest.mark.parametrize(("script", "processes"), [(POOL, 4), (SWEEP, 4)], ids=["pool", "sweep"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_parent_leaves_nobody(
    script: str, processes: int, number: signal.Signals, marker: str, tmp_path: Path
) -> None:
    file = tmp_path / "script.py"
    file.write_text(script)
    name, _, value = marker.partition("=")
    parent = subprocess.Popen(
        [sys.executable, file], env={**os.environ, name: value, "PYTHONPATH": str(ROOT)}, cwd=ROOT
    )
    assert wait_for(lambda: len(children(marker)) >= processes, 30)
    time.sleep(0.5)
    parent.send_signal(number)
    parent.wait(20)
    assert wait_for(lambda: not children(marker), 10), children(marker)


def test_pool_whose_process_dies_says_so(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(POOL.replace("time.sleep(100)", "import os; os.kill(os.getpid(), 9)"))
    done = subprocess.run(
        [sys.executable, file],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Working: one of 3 processes was ended from outside" in done.stderr
