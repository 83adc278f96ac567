"""Journals and results that were damaged, cut short, or filled by nobody."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from support import made_up

from fss.evaluation.journal import Entry, Journal
from fss.evaluation.results import read_episodes, read_metrics_file, write_results
from fss.files.whole import NotWrittenError

KEY = "k" * 64
ENTRIES = [Entry(321, i, i, 200, 300 + i, 900, 1 + i) for i in range(100)]


def journal(folder: Path, entries: list[Entry]) -> Path:
    writing = Journal(folder, KEY).open(0)
    for entry in entries:
        writing.add(entry)
    writing.close()
    return folder / ".unfinished-0"


def test_no_flipped_bit_gives_another_entry(tmp_path: Path) -> None:
    path = journal(tmp_path, ENTRIES)
    content, chance = path.read_bytes(), random.Random(0)
    for _ in range(2000):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        found = Journal(tmp_path, KEY).read()
        assert set(found) <= set(ENTRIES)
        assert len(found) >= len(ENTRIES) - 2  # two where their line break was hit


def test_intersection_above_its_union_is_no_entry(tmp_path: Path) -> None:
    path = journal(tmp_path, [*ENTRIES, Entry(321, 100, 900, 200, 1, 1, 1)])  # with its checksum
    assert path.read_text().count("\n") == 102
    assert Journal(tmp_path, KEY).read() == ENTRIES


@pytest.mark.parametrize("end", [b"\0" * 4096, b"321 7 1", b"\xff\xfe", b"321 7 1 2 3\n"])
def test_what_a_power_cut_leaves_is_cut_off(end: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = journal(tmp_path, ENTRIES)
    path.write_bytes(path.read_bytes() + end)
    assert Journal(tmp_path, KEY).read() == ENTRIES
    assert "cut short or damaged" in caplog.text
    more = Entry(321, 500, 1, 2, 3, 4, 5)
    for _ in range(2):  # every retry works
        assert journal(tmp_path, [more]) == path
        assert set(Journal(tmp_path, KEY).read()) == {*ENTRIES, more}


def test_opening_on_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """5000 finished episodes became 461 when the file was cut first and then written again."""
    entries = [Entry(321, i, 1, 2, 3, 4, 5) for i in range(5000)]
    path = journal(tmp_path, entries)
    path.write_bytes(path.read_bytes() + b"321 77")
    os.symlink("/dev/full", tmp_path / f"..unfinished-0.{os.getpid()}.part")  # where it would be written anew
    Journal(tmp_path, KEY).open(0).close()
    assert Journal(tmp_path, KEY).read() == entries


def test_entry_that_does_not_fit_says_so(tmp_path: Path) -> None:
    writing = Journal(tmp_path, KEY).open(0)
    assert writing._file is not None
    writing._file.close()
    with (
        Path("/dev/full").open("r+b", buffering=0) as writing._file,
        pytest.raises(
            NotWrittenError, match=r"\.unfinished-0 could not be written .*free some space and run the same"
        ),
    ):
        writing.add(ENTRIES[0])


def test_results_on_a_full_disk_leave_the_older_ones(tmp_path: Path) -> None:
    folder = made_up.evaluation(tmp_path)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    metrics = read_metrics_file(folder / "metrics.json")
    for name in ("metrics.json", "metrics.csv", "episodes.csv"):
        full = folder / f".{name}.{os.getpid()}.part"
        full.symlink_to("/dev/full")
        with pytest.raises(NotWrittenError, match=rf"{name} could not be written .*No space left.*as it was"):
            write_results(folder, metrics, [])
        assert {path: path.read_bytes() for path in folder.iterdir()} == before


def change(metrics: dict[str, Any], path: str, value: Any) -> None:
    *holders, last = path.split(".")
    for key in holders:
        metrics = metrics[int(key)] if isinstance(metrics, list) else metrics[key]
    metrics[last] = value


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("miou", 0.9),
        ("miou", "0.5"),
        ("miou", float("nan")),
        ("fb_iou", None),
        ("seeds.0.miou", 0.1),
        ("seeds.0.classes.star.iou", 0.9),
        ("seeds.0.classes.star.intersection", 900_000),
        ("seeds.0.classes.star.intersection", 20_001),
        ("seeds.0.classes.star.union", -1),
        ("classes.star.iou", 1.0),
        ("fold", "0"),
        ("fold", True),
        ("seed", 1.5),
        ("dataset", None),
        ("eval_seeds", [1]),
        ("eval_seeds", []),
        ("trained_parameters", "many"),
        ("seeds", []),
        ("config", []),
        ("test_seconds", float("inf")),
    ],
)
def test_results_that_do_not_follow_from_their_integers_are_named(place: str, value: Any, tmp_path: Path) -> None:
    folder = made_up.evaluation(tmp_path)
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    change(metrics, place, value)
    path.write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match=r"metrics\.json is not what this program wrote"):
        read_metrics_file(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [("5000,10000", "15000,10000"), ("321,0,1", "-321,0,1"), ("321,0,1", "٣,0,1"), ("321,1,", "321,0,")],
)
def test_impossible_episode_is_named(old: str, new: str, tmp_path: Path) -> None:
    path = made_up.evaluation(tmp_path) / "episodes.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"episodes\.csv"):
        read_episodes(path.parent)
