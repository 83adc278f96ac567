"""Targets that cannot be written, and long names that can."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fss.files.whole import NotWrittenError, UnusableNameError, check_target, forget_unfinished, whole

LONG = "Ж" * 124 + ".jpg"  # 252 bytes, of 255 that a name may have


def test_a_long_name_is_written_and_its_unfinished_file_forgotten(tmp_path: Path) -> None:
    with whole(tmp_path / LONG) as unfinished:
        unfinished.write_text("a")
        shutil.copy(unfinished, tmp_path / "kept")
    assert (tmp_path / LONG).read_text() == "a"
    (tmp_path / "kept").rename(unfinished)  # as a killed process leaves it
    forget_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LONG]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("folder", r"folder could not be written \(Is a directory\): it is a folder; name a file"),
        ("file/b", r"b could not be written \(Not a directory\): .*file is no folder; choose another place"),
        ("file/b/c", r"c could not be written \(Not a directory\): .*file is no folder; choose another place"),
        ("Ж" * 130, r"could not be written \(File name too long\): choose another name"),
        ("new/" + "a" * 256, r"could not be written \(File name too long\): choose another name"),
    ],
)
def test_what_cannot_be_written_is_told_before_and_after(target: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(NotWrittenError, match=message) as early:
        check_target(tmp_path / target)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    with pytest.raises(NotWrittenError, match=message) as late, whole(tmp_path / target) as unfinished:
        unfinished.touch()
    assert str(early.value) == str(late.value)
    assert isinstance(early.value, UnusableNameError) == ("too long" in message)
    assert not list(tmp_path.rglob("*.part"))


def test_a_target_is_tried_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("as it was")
    for name in ("there", "new", "a/b/new"):
        check_target(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    with pytest.raises(NotWrittenError, match="it is a folder; name a file"):
        check_target(Path())
