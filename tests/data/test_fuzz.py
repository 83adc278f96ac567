"""A short run of every target of `python -m checks.fuzz`, each in a process of its own."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from checks.fuzz import isolated, targets, trials
from checks.fuzzing.target import FileTarget, Target


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_every_target(target: Target) -> None:
    count = 20 if target.name.startswith("model") else 60  # a network is made for each of these
    outcomes = isolated(target, seed=1, numbers=range(count))
    assert [o for o in outcomes if o.kind in ("silent", "other")] == []
    assert sum(Counter(o.kind for o in outcomes).values()) == count


def _write(folder: Path) -> list[Path]:
    (folder / "file.txt").write_bytes(b"content")
    return [folder / "file.txt"]


def _flip(content: bytes, rng: object) -> bytes:
    return content.upper()


def test_what_counts_as_wrong() -> None:
    """The judge itself: each fault is seen."""

    def unnamed(folder: Path) -> str:
        if (text := (folder / "file.txt").read_text()) != "content":
            raise ValueError("something is wrong")
        return text

    def crash(folder: Path) -> str:
        if (folder / "file.txt").read_text() != "content":
            os.abort()
        return ""

    def outside(folder: Path) -> None:
        (folder.parent / "moved.txt").write_text("")

    def kinds(target: FileTarget) -> list[str]:
        return [o.kind for o in isolated(target, 0, range(2))]

    assert kinds(FileTarget("unnamed", _write, unnamed, _flip)) == ["other"] * 2
    assert kinds(FileTarget("dies", _write, crash, _flip)) == ["other"] * 2
    assert kinds(FileTarget("outside", _write, outside, _flip)) == ["other"] * 2
    read = FileTarget("changed", _write, lambda f: (f / "file.txt").read_text(), _flip, exact=True)
    assert kinds(read) == ["silent"] * 2


def test_same_seed_same_damage() -> None:
    target = targets()[0]
    assert list(trials(target, 3, range(20))) == list(trials(target, 3, range(20)))
    assert list(trials(target, 3, range(10, 20))) == list(trials(target, 3, range(20)))[10:]
