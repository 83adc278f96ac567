"""An annotation file in COCO's format to plain values, all of them checked: such files come from many tools.

What could be misunderstood is refused, with file and entry, rather than guessed at.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fss.data.readers.pictures import MAX_PIXELS
from fss.files.text import is_file_name, is_name, printable, read_text, some
from fss.labels import BACKGROUND_NAMES, MAX_CLASSES

logger = logging.getLogger(__name__)

PARTS = ("images", "annotations", "categories")


class AnnotatedPicture(NamedTuple):
    """A picture of the file; `height` and `width` in pixels."""

    id: int
    file_name: str
    height: int
    width: int


class AnnotatedObject(NamedTuple):
    """An object of the file; its segmentation is checked when it is drawn."""

    id: int
    category: int
    crowd: bool
    segmentation: Any


class Annotations(NamedTuple):
    """What an annotation file says.

    Attributes:
        pictures: Those that hold an object, by id, ascending.
        objects: Of each of them, by its id, in the order of the file.
        categories: Names by id, ascending.
    """

    pictures: dict[int, AnnotatedPicture]
    objects: dict[int, list[AnnotatedObject]]
    categories: dict[int, str]


def read_annotations(path: Path, max_pixels: int = MAX_PIXELS) -> Annotations:
    """Reads instance annotations.

    A category that no object has is a class all the same, but for the root that some tools write, which others
    name as their supercategory, and for a background; both are told.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, or an entry of it cannot be used; the message names it.
    """
    parts = _parse(path)
    source = printable(path)
    pictures = {
        number: _picture(source, number, entry, max_pixels)
        for number, entry in _by_id(source, "picture", "images", parts["images"], ("file_name", "height", "width"))
    }
    _check_files(source, pictures.values())
    entries = dict(_by_id(source, "category", "categories", parts["categories"], ("name",)))
    objects: dict[int, list[AnnotatedObject]] = {}
    lost: list[str] = []
    needed = ("image_id", "category_id", "segmentation")
    for number, entry in _by_id(source, "annotation", "annotations", parts["annotations"], needed):
        image, category = entry["image_id"], entry["category_id"]
        if type(category) is not int or category not in entries:
            raise ValueError(f"{source}: annotation {number} has category {_short(category)}, which is not listed")
        if type(image) is not int or image not in pictures:
            lost.append(f"{number} (picture {_short(image)})")
            continue
        crowd = entry.get("iscrowd")
        if crowd not in (0, 1, None) or isinstance(crowd, float):
            raise ValueError(f"{source}: annotation {number} has iscrowd={_short(crowd)}, must be 0 or 1")
        objects.setdefault(image, []).append(AnnotatedObject(number, category, bool(crowd), entry["segmentation"]))
    if lost:
        raise ValueError(
            f"{source}: {len(lost)} annotations are of pictures that it does not list: {some(lost)}; list "
            "them, with whole numbers as ids, or remove the annotations"
        )
    if not objects:
        raise ValueError(f"{source} lists no picture with an annotation")
    used = {thing.category for things in objects.values() for thing in things}
    return Annotations(
        {number: pictures[number] for number in sorted(objects)}, objects, _categories(source, entries, used)
    )


def _parse(path: Path) -> dict[str, list[dict[str, Any]]]:
    source = printable(path)
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise _not_annotations(source, str(error)[:300]) from error
    if not isinstance(content, dict):
        raise _not_annotations(source, "it has no object at the top")
    for part in content.keys() & set(PARTS):
        if not isinstance(content[part], list):
            raise _not_annotations(source, f"its {part} are no list")
        for place, entry in enumerate(content[part]):
            if not isinstance(entry, dict):
                raise _not_annotations(source, f"entry {place} of its {part} is {_short(entry)}")
    if missing := set(PARTS) - set(content):
        raise ValueError(
            f"{source} has no {', '.join(sorted(missing))}: use the instance annotations (instances_*.json)"
        )
    return content


def _not_annotations(source: str, why: str) -> ValueError:
    return ValueError(f"{source} is not a COCO annotation file: {why}; unpack it again")


def _by_id(
    source: str, kind: str, part: str, entries: Sequence[dict[str, Any]], needed: Sequence[str]
) -> list[tuple[int, Mapping[str, Any]]]:
    """Entries with their ids."""
    found: dict[int, Mapping[str, Any]] = {}
    for place, entry in enumerate(entries):
        number = entry.get("id")
        if type(number) is not int:
            raise ValueError(
                f"{source}: {kind} at place {place} of {part} has the id {_short(number)}, must be a whole number"
            )
        if lacking := [key for key in needed if key not in entry]:
            raise ValueError(f"{source}: {kind} {number} has no {', '.join(lacking)}")
        if number in found:  # the later one would silently replace the other
            raise ValueError(f"{source}: two of its {part} have the same id ({number}): give each a unique one")
        found[number] = entry
    return list(found.items())


def _picture(source: str, number: int, entry: Mapping[str, Any], max_pixels: int) -> AnnotatedPicture:
    name, height, width = entry["file_name"], entry["height"], entry["width"]
    if not isinstance(name, str) or not is_file_name(name):
        raise ValueError(
            f"{source}: picture {number} has the file_name {_short(name)}, must be a path below the folder of "
            "pictures, without .. or a drive"
        )
    for key, value in (("height", height), ("width", width)):
        if type(value) is not int or value < 1:
            raise ValueError(
                f"{source}: picture {number} has {key}={_short(value)}, must be a whole number of pixels"
            )
    if height * width > max_pixels:
        raise ValueError(
            f"{source}: picture {number} has {width} x {height} pixels, more than dataset.max_pixels={max_pixels}"
        )
    return AnnotatedPicture(number, name, height, width)


def _check_files(source: str, pictures: Collection[AnnotatedPicture]) -> None:
    by_name: dict[str, int] = {}
    for picture in pictures:
        # a support would be the query itself
        if (other := by_name.setdefault(picture.file_name, picture.id)) != picture.id:
            raise ValueError(
                f"{source}: pictures {other} and {picture.id} are one file, {printable(picture.file_name)}: give "
                "their annotations one image_id and remove the other entry"
            )


def _categories(source: str, entries: Mapping[int, Mapping[str, Any]], used: Collection[int]) -> dict[int, str]:
    names: dict[int, str] = {}
    parents = {
        entry.get("supercategory")
        for entry in entries.values()
        if isinstance(entry.get("supercategory"), str) and entry["supercategory"] != entry["name"]
    }
    for number in sorted(entries):
        name = entries[number]["name"]
        if not isinstance(name, str) or not is_name(name.strip()):
            raise ValueError(f"{source}: category {number} has the name {_short(name)}, must be text to be shown")
        name = name.strip()
        is_background = name.casefold() in BACKGROUND_NAMES
        if is_background and number in used:
            raise ValueError(
                f"{source}: category {number} is called {name!r} but has annotations: background is what no "
                "object covers, so remove these annotations or rename the category"
            )
        if is_background or (number not in used and name in parents):
            why = "background" if is_background else "a root that no object has"
            logger.warning("%s: category %d, %r, is %s and no class", source, number, name, why)
            continue
        if (twin := next((n for n, other in names.items() if other == name), None)) is not None:
            raise ValueError(
                f"{source}: categories {twin} and {number} are both called {name!r}: rename one of them"
            )
        names[number] = name
    if not 0 < len(names) <= MAX_CLASSES:
        raise ValueError(f"{source} has {len(names)} categories, must be 1 to {MAX_CLASSES}")
    return names


def _short(value: object) -> str:
    """A value of the file for a message."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
