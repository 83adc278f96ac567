"""Scripts as processes of their own that start warm: forks of one that has imported what they all wait for.

Torch, Lightning and what these bring take four seconds of processor time, many times those of a small run. Of this
project nothing is imported before the fork, so that a script starts with its own modules as new as in a process
that a user starts, and with exit code, signals, session, working directory and environment of its own. What is not
its own is the order of sets (one PYTHONHASHSEED for all) and OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

SLOW = ("torch", "hydra", "lightning", "torchmetrics", "timm", "albumentations", "pycocotools.mask", "rich.table")
ROOT = Path(__file__).parents[2]


class Script:
    """A started script, with what tests need of `subprocess.Popen`.

    Args:
        command: A script of the project, "-m" and a module, or "-c" and code; and arguments.
        cwd: Its working directory.
        environment: All of its environment but OMP_NUM_THREADS; by default that of this process.
    """

    def __init__(self, *command: str, cwd: Path, environment: Mapping[str, str] | None = None) -> None:
        self.args = command
        self.returncode: int | None = None
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115  # read when the script has ended
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._answers, theirs = socket.socketpair()
        variables = {**(environment or os.environ), "OMP_NUM_THREADS": "1"}
        told = {"command": command, "cwd": str(cwd), "environment": variables}
        with tempfile.TemporaryFile("w+") as request, theirs:
            json.dump(told, request)
            request.flush()
            files = [theirs.fileno(), request.fileno(), self._out.fileno(), self._err.fileno()]
            socket.send_fds(_nursery(), [b"."], files)
        self.pid = int(self._answer(120))

    def _answer(self, timeout: float | None) -> str:
        self._answers.settimeout(timeout)
        answer = b""
        while not answer.endswith(b"\n"):
            part = self._answers.recv(1)
            if not part:
                raise RuntimeError("the process that starts scripts has ended")
            answer += part
        return answer.decode()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or the negative number of the signal that ended it."""
        if self.returncode is None:
            try:
                self.returncode = int(self._answer(timeout))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
        return self.returncode

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits, and returns what it printed on standard output and on standard error.

        Raises:
            subprocess.TimeoutExpired: After `timeout` seconds; all of its processes are then killed.
        """
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            raise
        return _all_of(self._out), _all_of(self._err)

    def send_signal(self, number: int) -> None:
        """Sends a signal to the script alone."""
        os.kill(self.pid, number)


def run(
    *command: str, cwd: Path, environment: Mapping[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Runs a script to its end; see `Script`.

    Raises:
        subprocess.TimeoutExpired: After `timeout` seconds.
    """
    script = Script(*command, cwd=cwd, environment=environment)
    out, err = script.communicate(timeout)
    return subprocess.CompletedProcess(command, script.wait(), out, err)


def _all_of(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


@cache
def _nursery() -> socket.socket:
    """The way to the process that forks; it ends with this one, when the connection closes."""
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with theirs:
        subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    return ours


def _serve(requests: socket.socket) -> None:
    """Forks for every request, until there can be none; returns in the forks."""
    gc.disable()
    sys.path.remove(str(Path(__file__).parent))
    sys.modules["wandb"] = None  # type: ignore[assignment]  # timm would import it, as scripts do not let it
    for module in SLOW:
        importlib.import_module(module)
    del sys.modules["wandb"]
    gc.freeze()
    while True:
        message, files, *_ = socket.recv_fds(requests, 1, 4)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            _attend(*files)
            return
        for file in files:
            os.close(file)
        with suppress(ChildProcessError):  # there are none
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _attend(answers: int, request: int, out: int, err: int) -> None:
    """Forks again, tells the script's number and waits for it; returns in the script."""
    script = os.fork()
    if script:
        os.write(answers, f"{script}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(script, 0)[1])
        os.write(answers, f"{code}\n".encode())
        os._exit(0)
    os.close(answers)
    os.setsid()
    os.dup2(out, 1)
    os.dup2(err, 2)
    with open(request) as file:
        file.seek(0)
        told = json.load(file)
    os.close(out)
    os.close(err)
    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.argv = told["command"]


def _become() -> None:
    """Goes on as Python would that was started with `sys.argv`."""
    import random

    import numpy as np

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started the suite behind
    gc.enable()
    random.seed()
    np.random.seed()
    if sys.argv[0] == "-c":
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(sys.argv.pop(1), vars(main))
    elif sys.argv[0] == "-m":
        sys.path.insert(0, os.getcwd())
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        script = str(ROOT / sys.argv[0])
        sys.path.insert(0, str(Path(script).parent))
        sys.argv[0] = script
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    _become()
