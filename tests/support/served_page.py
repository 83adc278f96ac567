"""The page as `python -m fss.web` serves it."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import ROOT


@dataclass
class Served:
    """A page that is being served.

    Attributes:
        address: Where it is.
        folder: Its temporary folder.
        said: What it has said so far, line by line.
    """

    address: str
    folder: Path
    said: list[str]


@contextmanager
def serving(temporary: Path, *arguments: str) -> Iterator[Served]:
    """Serves the page from any free port until the end, which SIGTERM brings and which leaves no files.

    Args:
        temporary: For its temporary folder.
        arguments: Further arguments of the command.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "fss.web", "--device", "cpu", "--port", str(port), *arguments]
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said: list[str] = []
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(process, said, lines), daemon=True).start()
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", lines.get(timeout=300))
        assert address, said
        [folder] = temporary.glob("fss-web-*")
        yield Served(address[0], folder, said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, said
        assert not folder.exists()
    finally:
        process.kill()


def _read(process: subprocess.Popen[str], said: list[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        lines.put(line)
