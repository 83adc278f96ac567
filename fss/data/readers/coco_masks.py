"""COCO's prepared label maps, `masks/{split}-{crowd}/{picture}.png`, and the file that lists them."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from fss.files.text import is_file_name, is_name, read_text
from fss.files.whole import whole

logger = logging.getLogger(__name__)


class Contents(NamedTuple):
    """Contents of a folder of masks.

    Attributes:
        annotations: Digest of the annotation file from which the masks were drawn.
        classes: Class names; class id c is `classes[c - 1]`.
        pictures: File names of the pictures, in the order of the reader.
    """

    annotations: str
    classes: tuple[str, ...]
    pictures: tuple[str, ...]


def folder_of(root: Path, split: str, crowd: str) -> Path:
    """Folder of a split's masks."""
    return root / "masks" / f"{split}-{crowd}"


def mask_name(picture: str) -> str:
    """File name of a picture's mask; keeps the picture's suffix to distinguish a.jpg from a.png."""
    return f"{picture}.png"


def mask_path(folder: Path, picture: str) -> Path:
    """Path of a picture's mask."""
    return folder / mask_name(picture)


def contents_path(folder: Path) -> Path:
    """Path of the file that lists a folder's masks; written once all of them are complete."""
    return folder / "contents.json"


def digest(path: Path) -> str:
    """SHA-256 digest that identifies an annotation file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_contents(folder: Path, annotations: Path) -> Contents | None:
    """Reads a folder's contents; None if it is missing or was drawn from other annotations."""
    path = contents_path(folder)
    if not path.is_file():
        return None
    try:
        contents = _checked(json.loads(read_text(path)))
    except (ValueError, KeyError, TypeError, RecursionError):
        logger.warning("%s is damaged: masks are drawn again from %s", path, annotations)
        return None
    if contents.annotations != digest(annotations):
        logger.warning("%s was not drawn from %s and is therefore not used", folder, annotations)
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
