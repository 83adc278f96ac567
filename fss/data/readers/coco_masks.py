"""COCO's label maps drawn once and kept as PNGs: `masks/{split}-{crowd}/{picture}.png`, and what they hold."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from fss.files import whole
from fss.text import is_file_name, is_name, read_text

logger = logging.getLogger(__name__)


class Contents(NamedTuple):
    """What a folder of masks holds.

    Attributes:
        annotations: Digest of the annotation file that they were drawn from.
        classes: Class names; class id c is `classes[c - 1]`.
        pictures: Names of the picture files, in the order of the reader.
    """

    annotations: str
    classes: tuple[str, ...]
    pictures: tuple[str, ...]


def folder_of(root: Path, split: str, crowd: str) -> Path:
    """Where the masks of a split are."""
    return root / "masks" / f"{split}-{crowd}"


def mask_name(picture: str) -> str:
    """The mask of a picture in its folder; keeps the picture's suffix, so that a.jpg and a.png differ."""
    return f"{picture}.png"


def mask_path(folder: Path, picture: str) -> Path:
    """The mask of a picture."""
    return folder / mask_name(picture)


def contents_path(folder: Path) -> Path:
    """Where a folder of masks says what it holds; written when all of them are there."""
    return folder / "contents.json"


def digest(path: Path) -> str:
    """What tells an annotation file from every other."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_contents(folder: Path, annotations: Path) -> Contents | None:
    """What the folder holds; None where it is not there or was drawn from other annotations."""
    path = contents_path(folder)
    if not path.is_file():
        return None
    try:
        contents = _checked(json.loads(read_text(path)))
    except (ValueError, KeyError, TypeError, RecursionError):
        logger.warning("%s is damaged: masks are drawn anew from %s", path, annotations)
        return None
    if contents.annotations != digest(annotations):
        logger.warning("%s was drawn from other annotations than %s and is not used", folder, annotations)
        return None
    return contents


def _checked(read: dict[str, Any]) -> Contents:
    """What contents.json holds; ValueError, KeyError or TypeError where it is not what this program writes."""
    contents = Contents(read["annotations"], tuple(read["classes"]), tuple(read["pictures"]))
    if read.get("checksum") != _checksum(contents):
        raise ValueError("checksum")
    if not all(isinstance(name, str) and is_file_name(name) for name in contents.pictures):
        raise ValueError("a picture's name leads elsewhere")
    if not all(isinstance(name, str) and is_name(name) for name in contents.classes):
        raise ValueError("a class without a name")
    return contents


def _checksum(contents: Contents) -> str:
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def write_contents(folder: Path, contents: Contents) -> None:
    with whole(contents_path(folder)) as unfinished:
        unfinished.write_text(json.dumps({**contents._asdict(), "checksum": _checksum(contents)}))
