"""Runs that are interrupted, cannot write, or are asked for what makes no sense: each says what to do."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import ROOT
from support.warm import Script

from fss.cli.errors import tell

pytestmark = pytest.mark.slow
SMALL = [
    *("trainer=cpu", "logger=none", "pictures=1", "dataset.size=64", "dataset.train_reader.images=96"),
    *("dataset.eval_reader.images=64", "episodes=8", "dataset.num_workers=2"),
]
TRAINED = [*SMALL, "method.head.width=16", "dataset.train_episodes=24", "dataset.val_episodes=20", "batch_size=4"]
PRIOR = [*SMALL, "method=prior", "tuning=frozen", "backbone.weights=null"]


def start(script: str, *typed: str, cwd: Path) -> Script:
    return Script(script, *typed, cwd=cwd)


def run(script: str, *typed: str, cwd: Path) -> tuple[int, str, str]:
    process = start(script, *typed, cwd=cwd)
    out, err = process.communicate(timeout=240)
    return process.wait(), out, err


def interrupted(process: Script, begun: Callable[[], bool], times: int = 1) -> tuple[int, str, str]:
    """Presses Ctrl-C once it has begun; the terminal sends it to all of its processes."""
    while not begun():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
    out, err = process.communicate(timeout=60)
    return process.wait(), out, err


def test_interrupted_training_says_where_it_stands_and_goes_on(tmp_path: Path) -> None:
    typed = [*TRAINED, "dataset.epochs=50", "save_minutes=0"]
    process = start("train.py", *typed, cwd=tmp_path)
    code, out, err = interrupted(process, lambda: any(tmp_path.rglob("last.ckpt")))
    assert code == 130, out + err
    assert "Ctrl-C again ends at once" in out
    told = re.search(
        r"stopped by SIGINT after step (\d+) of 300 \(epoch \d+ of 50\), which (\S+) holds", out + err
    )
    assert told, out + err
    assert "resume=true" in out + err
    assert "Traceback" not in out + err
    [last] = tmp_path.rglob("last.ckpt")
    assert told[2].endswith(str(last.relative_to(tmp_path)))
    assert not list(tmp_path.rglob(".lock"))
    process = start("train.py", *typed, "resume=true", cwd=tmp_path)
    before = last.stat().st_mtime_ns
    code, out, err = interrupted(process, lambda: last.stat().st_mtime_ns != before)
    assert code == 130
    again = re.search(r"after step (\d+) of 300", out + err)
    assert again
    assert int(again[1]) > int(told[1])


def test_interrupted_evaluation_goes_on(tmp_path: Path) -> None:
    typed = [*PRIOR, "episodes=2000"]

    def finished() -> int:
        return sum(path.read_bytes().count(b"\n") - 1 for path in tmp_path.rglob(".unfinished-0"))

    process = start("evaluate.py", *typed, cwd=tmp_path)
    code, out, err = interrupted(process, lambda: finished() > 10)
    assert code == 130, out + err
    told = re.search(r"interrupted after (\d+) of 2000 episodes, which (\S+) keeps", out + err)
    assert told, out + err
    assert "the same command goes on from there" in out + err
    assert int(told[1]) == finished()


@pytest.mark.slow
@pytest.mark.nightly
def test_two_evaluations_of_one_folder(tmp_path: Path) -> None:
    first = start("evaluate.py", *PRIOR, "episodes=2000", cwd=tmp_path)
    while not any(tmp_path.rglob(".unfinished-0")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)  # it lives, and does not come to its end meanwhile
    code, _, err = run("evaluate.py", *PRIOR, "episodes=2000", cwd=tmp_path)
    assert code == 2
    assert f"is in use by process {first.pid} of" in err
    assert err.strip().count("\n") == 0
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()


@pytest.mark.nightly
def test_two_trainings_in_one_folder(tmp_path: Path) -> None:
    first = start("train.py", *TRAINED, "dataset.epochs=50", "save_minutes=0", cwd=tmp_path)
    while not any(tmp_path.rglob("last.ckpt")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)
    for more in ((), ("resume=true",)):
        code, _, err = run("train.py", *TRAINED, "dataset.epochs=50", *more, cwd=tmp_path)
        assert code == 2
        assert f"is in use by process {first.pid} of" in err
        assert "outputs=DIR" in err
        assert any(tmp_path.rglob("checkpoints/last.ckpt"))
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()


def test_disk_that_is_full_when_results_are_written(tmp_path: Path) -> None:
    """No file may be longer than 4000 bytes, so that pictures and results do not fit, but finished episodes do."""
    typed = [*PRIOR, "dataset.num_workers=0"]  # memory shared with workers is a file
    first = subprocess.run(
        [sys.executable, ROOT / "evaluate.py", *typed],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert first.returncode == 2, first.stderr
    error = first.stderr.strip().splitlines()[-1]
    assert re.match(r"error: .* could not be written \(.*\): is the disk full.*same command again", error)
    assert "Traceback" not in first.stderr
    code, out, err = run("evaluate.py", *typed, cwd=tmp_path)
    assert code == 0, err
    assert "8 of 8 episodes were already finished" in out + err
    assert not list(tmp_path.rglob(".*.part"))


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "outputs").touch()  # in the place of a folder, so that it fails for root too
    for script, typed in (("train.py", TRAINED), ("evaluate.py", PRIOR)):
        code, _, err = run(script, *typed, cwd=tmp_path)
        assert code == 2
        last = err.strip().splitlines()[-1]
        assert re.match(r"error: .*outputs.*(cannot be|not yours to) write?.*outputs=DIR", last), err


def one_class(folder: Path) -> Path:
    """Six pictures of bright squares, with masks."""
    chance = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    (folder / "classes.txt").write_text("square\n")
    for number in range(6):
        mask = np.zeros((60, 80), np.uint8)
        top, left = chance.integers(5, 30, 2)
        mask[top : top + 20, left : left + 25] = 1
        image = (chance.random((60, 80, 3)) * 80 + 150 * mask[..., None]).astype(np.uint8)
        Image.fromarray(image).save(folder / f"images/{number}.png")
        Image.fromarray(mask).save(folder / f"masks/{number}.png")
    return folder


@pytest.mark.nightly
def test_one_class_alone_is_evaluated_but_not_trained_on(tmp_path: Path) -> None:
    data = one_class(tmp_path / "one = class")
    typed = [
        *(o for o in PRIOR if "reader" not in o),
        "dataset=folder",
        f"dataset.root='{data}'",
        "dataset.size=65",
    ]
    code, out, err = run("evaluate.py", *typed, "protocol.seeds=[321]", cwd=tmp_path)
    assert code == 0, out + err
    assert "square" in out
    trained = [o for o in typed if not o.startswith(("method", "tuning"))]
    code, _, err = run("train.py", *trained, cwd=tmp_path)
    assert code == 2
    assert "fold 0 has no base class to train on" in err
    assert "ckpt=FILE" in err


@pytest.mark.slow
@pytest.mark.nightly
def test_what_was_typed_survives_to_the_evaluation(tmp_path: Path) -> None:
    """Places with `=` and settings that refer to others; a weight that makes no sense ends a run at once."""
    nowhere = "outputs=refused"
    code, _, err = run("train.py", *TRAINED, "method.foreground_weight=-5", nowhere, cwd=tmp_path)
    assert code == 2
    assert "method.foreground_weight=-5" in err
    typed = [*TRAINED, "dataset.epochs=1", "tuning.head_lr=${tuning.backbone_lr}", "outputs='a=b (c)'"]
    code, out, err = run("train.py", *typed, cwd=tmp_path)
    assert code == 0, out + err
    command = re.search(r"Evaluate again: *python evaluate.py (.*)", out)
    assert command
    done = subprocess.run(
        f"{sys.executable} {ROOT / 'evaluate.py'} {command[1]} trainer=cpu",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("typed", [("train.py", "--help"), ("-m", "fss.export", "--help")])
def test_nothing_is_told_when_nobody_reads_any_more(typed: tuple[str, ...]) -> None:
    """As with `python train.py --help | head -1`, where head has ended."""
    reads, writes = os.pipe()
    os.close(reads)
    try:
        ended = subprocess.run(
            [sys.executable, *typed],
            cwd=ROOT,
            stdout=writes,
            stderr=subprocess.PIPE,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        os.close(writes)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_another_broken_pipe_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(BrokenPipeError(errno.EPIPE, "Broken pipe", "a worker's")) is True
    assert "Broken pipe" in capsys.readouterr().err
