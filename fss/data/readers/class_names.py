"""Names of classes as lists and folders give them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

from fss.files.text import is_name, printable, read_text, some
from fss.labels import BACKGROUND_NAMES

_NO_CLASSES = BACKGROUND_NAMES | {"__ignore__"}  # labelme's own first lines


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names of a file, one a line; class id c is on line c, empty lines aside.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no text, names background or one class twice, or a line is no name.
    """
    names = tuple(class_name(line) for line in read_text(path).splitlines() if line.strip())
    if odd := [ascii(name[:60]) for name in names if not is_name(name)]:
        raise ValueError(f"{printable(path)} has lines that are no names: {some(odd, 3)}")
    if extra := [name for name in names if name.casefold() in _NO_CLASSES]:
        raise ValueError(
            f"{printable(path)} lists {some(extra)}: background is 0 and has no line, nor have ignored pixels: "
            "remove it, so that line 1 is class 1"
        )
    if twins := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{printable(path)} names a class twice: {some(twins)}; give each class a unique name")
    return names


def class_folders(folder: Path) -> dict[str, Path]:
    """The folders that stand for classes, by the class's name, in alphabetical order; not those of a dot.

    Raises:
        ValueError: One is called as background is.
    """
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {class_name(path.name): path for path in folders}
    if extra := [path for name, path in found.items() if name.casefold() in _NO_CLASSES]:
        raise ValueError(f"{printable(extra[0])} is no class: background is what no mask covers; move it away")
    return found


def class_name(text: str) -> str:
    """A name as it is compared and shown: accents in one form, whatever file system or editor wrote it."""
    return unicodedata.normalize("NFC", printable(text).strip())
