"""Checks that one process, two processes, and two that are killed and restarted give the same evaluation results.

    python -m checks.interrupted

Evaluates the training-free prior mask on small embedded data. Prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from checks import forks
from fss.evaluation.journal import Journal

SETTINGS = [
    "method=prior",
    "tuning=frozen",
    "backbone.weights=null",
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "pictures=0",
    "episodes=15",
    "seeds=[321,1]",
    "shot=2",
]


def killed_at(entries: int) -> Callable[[], None]:
    """Returns a function that makes the process kill itself after recording `entries` episodes."""

    def prepare() -> None:
        add, count = Journal.add, 0

        def counted(self: Journal, *args: Any) -> None:
            nonlocal count
            add(self, *args)
            count += 1
            if count == entries:
                os.kill(os.getpid(), signal.SIGKILL)

        Journal.add = counted  # type: ignore[method-assign,assignment]

    return prepare


def evaluated(folder: Path, world: int, before: Callable[[], None] | None = None) -> list[int]:
    """Evaluates with `world` processes; returns their exit codes."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world), "NODE_RANK": "0"}
    children = [
        forks.start(
            folder,
            *SETTINGS,
            f"trainer.devices={world}",
            environment={**known, "LOCAL_RANK": rank, "RANK": rank},
            before=before,
            script="evaluate.py",
        )
        for rank in map(str, range(world))
    ]
    return [forks.wait(child) for child in children]


def outcome(folder: Path) -> dict[str, Any]:
    """Content of all result files, without the timings and the trainer settings in metrics.json."""
    [path] = folder.rglob("metrics.json")
    metrics = json.loads(path.read_text())
    del metrics["test_seconds"], metrics["config"]["trainer"]
    return {p.name: metrics if p == path else p.read_text() for p in path.parent.iterdir()}


def main() -> int:
    """Evaluates three times and compares the results."""
    forks.SETTINGS.remove("method.head.width=16")  # the prior mask has no such setting
    with tempfile.TemporaryDirectory() as place:
        alone, two, killed = (Path(place) / name for name in ("alone", "two", "killed"))
        codes = [*evaluated(alone, 1), *evaluated(two, 2)]
        stopped = evaluated(killed, 2, killed_at(4))
        noted = sum(len(path.read_text().splitlines()) - 1 for path in killed.rglob(".unfinished-*"))
        written = bool(list(killed.rglob("metrics.json")))
        codes += evaluated(killed, 2)
        if any(codes):
            print(*((f / "log.txt").read_text()[-6000:] for f in (alone, two, killed)), codes, file=sys.stderr)
            return 1
        results = [outcome(folder) for folder in (alone, two, killed)]
        result = {
            "killed": stopped,
            "noted": noted,
            "written before its end": written,
            "files": sorted(results[0]),
            "miou": results[0]["metrics.json"]["miou"],
            "two as one": results[1] == results[0],
            "resumed as one": results[2] == results[0],
        }
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
