"""Text and names from files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fss.files.text import is_file_name, is_name, printable, read_text, some


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("né à 図".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "né à 図"


@pytest.mark.parametrize("content", [b"caf\xe9", b"a\0b\0", b"\xff\xfea", b"\xef\xbb\xbf\xff", b"\0"])
def test_others_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.txt .*save it as UTF-8"):
        read_text(tmp_path / "a.txt")


def test_printable() -> None:
    assert printable("a/b é 図.png") == "a/b é 図.png"
    assert printable(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
    printable("\ud800 half a character").encode()


@pytest.mark.parametrize(
    "name", ["a.jpg", "a/b.jpg", "a b/c..d.jpg", "...", "図.jpg", os.fsdecode(b"caf\xe9.jpg")]
)
def test_file_names(name: str) -> None:
    assert is_file_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/a",
        "a/../b",
        "a//b",
        "./a",
        "a/",
        "\\a",
        "..\\a",
        "C:\\a",
        "C:a",
        "a\0b",
        "\ud800",
        "a" * 256,
    ],
)
def test_names_that_lead_elsewhere(name: str) -> None:
    assert not is_file_name(name)


def test_names() -> None:
    assert is_name("hot dog")
    assert is_name("図")
    for name in ("", " ", "a\nb", "a\x1b[31m", "\ud800", "x" * 300):
        assert not is_name(name)


def test_some() -> None:
    assert some([1, 2], 3) == "1, 2"
    assert some(range(5), 3) == "0, 1, 2, and 2 more"
