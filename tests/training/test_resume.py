"""Runs that are stopped and go on, checkpoints that cannot be written, and what becomes of an older run's."""

from __future__ import annotations

import logging
import resource
from pathlib import Path

import pytest
import torch
from support import ROOT, warm

from fss.training.callbacks.checkpoints import WholeCheckpoints
from fss.training.run_folder import forget_earlier, newest_checkpoint, note_settings, prepare_folder


@pytest.mark.slow
def test_killed_runs_end_with_the_bits_of_an_undisturbed_one() -> None:
    """`checks/resume.py` knows more moments."""
    done = warm.run("-m", "checks.resume", "writing", "term-validation", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the same bits") == 2


def save(path: Path, value: float, size: int = 10) -> None:
    WholeCheckpoints().save_checkpoint({"weights": torch.full((size,), value), "global_step": int(value)}, path)


def loaded(path: Path) -> float:
    return WholeCheckpoints().load_checkpoint(path, weights_only=True)["weights"][0].item()


def test_full_disk_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save(path, 1.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"last\.ckpt could not be written \(.*is the disk full.*free some"):
            save(path, 2.0, size=1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert loaded(path) == 1.0
    assert list(tmp_path.iterdir()) == [path]
    assert newest_checkpoint(tmp_path) == path
    save(path, 3.0)
    assert loaded(path) == 3.0


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_checkpoints_are_passed_over(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    save(best, 1.0)
    assert newest_checkpoint(tmp_path) == best
    save(last, 2.0, size=1000)
    assert newest_checkpoint(tmp_path) == last
    content = bytearray(last.read_bytes())
    place = content.index(torch.full((1000,), 2.0).numpy().tobytes())
    content[place + 100] ^= 1
    end = {"truncated": -50, "flipped": len(content), "empty": 0}[damage]
    last.write_bytes(content[:end])
    assert newest_checkpoint(tmp_path) == best
    assert f"{last} is damaged" in caplog.text
    best.unlink()
    assert newest_checkpoint(tmp_path) is None


def test_a_new_run_sets_the_earlier_one_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoints"
    assert prepare_folder(folder, resume=False, first=True) is None
    assert not caplog.text
    asides = [tmp_path / "checkpoints.before/last.ckpt", tmp_path / "checkpoints.before2/last.ckpt"]
    for value, aside in enumerate(asides, start=1):  # the second finds one set aside by a run that was not trained
        save(folder / "last.ckpt", float(value))
        (folder / ".last.ckpt.77.part").touch()
        assert prepare_folder(folder, resume=False, first=True) is None
        assert (
            f"resume=true would have continued the existing run. Its checkpoints are kept in {aside.parent}"
            in (caplog.text)
        )
        assert list(aside.parent.iterdir()) == [aside]
    assert [loaded(aside) for aside in asides] == [1.0, 2.0]
    forget_earlier(folder)
    assert not any(aside.parent.exists() for aside in asides)


def test_resume_finds_the_newest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "checkpoints"
    assert prepare_folder(folder, resume=True, first=True) is None
    assert f"there is no checkpoint in {folder}" in capsys.readouterr().out
    save(folder / "last.ckpt", 1.0)
    for first in (True, False):
        assert prepare_folder(folder, resume=True, first=first) == folder / "last.ckpt"
    assert capsys.readouterr().out.count("Resuming from") == 1
    assert loaded(folder / "last.ckpt") == 1.0


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "outputs").touch()  # a file, so that it fails for root too
    with pytest.raises(OSError, match=r"outputs cannot be written \(.*outputs=DIR"):
        prepare_folder(tmp_path / "outputs/checkpoints", resume=False, first=True)


def test_a_resumed_run_says_what_it_does_otherwise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "config.yaml"
    began = {"batch_size": 8, "resume": False, "dataset": {"name": "shapes", "epochs": 4, "pyramid": [1.0, 0.5]}}
    note_settings(path, began, resume=False)
    with caplog.at_level(logging.WARNING):
        note_settings(path, {**began, "resume": True}, resume=True)
        assert not caplog.text
        now = {**began, "batch_size": 4, "dataset": {"name": "shapes", "epochs": 4, "root": "there"}}
        note_settings(path, now, resume=True)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "batch_size is now 4; the run started with 8",
        "dataset.pyramid is now None; the run started with [1.0, 0.5]",
        "dataset.root is now there; the run started with None",
    ]
