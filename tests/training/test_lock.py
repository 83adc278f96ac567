"""One process at a time in a folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fss.files import lock
from fss.training.run_folder import prepare_folder

ROOT = next(folder for folder in Path(__file__).parents if (folder / "train.py").is_file())
HOLD = """
import sys, time
from pathlib import Path
from fss.files import lock
lock.hold(Path(sys.argv[1]), "choose another place")
print("held", flush=True)
time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    # a suite that a shell started in the background ignores SIGINT, and its children would too
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, folder],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_second_run_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "last.ckpt").write_text("of the run that trains")
    first = holder(tmp_path)
    try:
        with pytest.raises(lock.FolderInUseError) as refusal:
            prepare_folder(checkpoints, resume=False, first=True)
        for told in (str(tmp_path), f"process {first.pid}", socket.gethostname(), "outputs=DIR", "Wait until"):
            assert told in str(refusal.value)
        assert (checkpoints / "last.ckpt").read_text() == "of the run that trains"
    finally:
        first.kill()
        first.wait()
    assert (tmp_path / lock.NAME).is_file()  # killed: it could not clear up
    lock.hold(tmp_path, "")  # its lock is stale, at once
    lock.hold(tmp_path, "")
    lock.release(tmp_path)
    assert not (tmp_path / lock.NAME).exists()


def test_lock_goes_with_its_process(tmp_path: Path) -> None:
    first = holder(tmp_path)
    first.send_signal(signal.SIGINT)
    first.wait()
    assert not (tmp_path / lock.NAME).exists()


def said(**more: object) -> str:
    return json.dumps({"owner": "ann", "host": "another", "pid": 7, "since": "yesterday", **more})


def test_machine_that_shares_no_locks_is_known_by_its_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 1.0)
    file = tmp_path / lock.NAME
    file.write_text(said(owner="\x1b[31mann"))
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(0.1):
            os.utime(file)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        told = r"process 7 of \\x1b\[31mann on another \(since yesterday\)"
        with pytest.raises(lock.FolderInUseError, match=told):
            lock.hold(tmp_path, "")
    finally:
        ended.set()
        thread.join()
    began = time.monotonic()
    lock.hold(tmp_path, "")  # it shows no life any more
    assert time.monotonic() - began >= 1
    lock.release(tmp_path)


@pytest.mark.parametrize("content", ["", "\0\0\0\0", "{", "[1]", said(host=socket.gethostname()), "[" * 4000])
def test_what_a_crash_left_is_no_lock(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    (tmp_path / lock.NAME).write_text(content)
    lock.hold(tmp_path, "")
    assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    lock.release(tmp_path)


def test_holder_shows_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    lock.hold(tmp_path, "")
    before = (tmp_path / lock.NAME).stat().st_mtime_ns
    end = time.monotonic() + 10
    while (tmp_path / lock.NAME).stat().st_mtime_ns == before:
        assert time.monotonic() < end
        time.sleep(0.05)
    lock.release(tmp_path)


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/run cannot be written \(.*\): choose another place"):
        lock.hold(tmp_path / "file" / "run", "choose another place")
