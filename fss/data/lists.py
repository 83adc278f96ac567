"""Lists of pictures in an order of their own, and short digests that tell whether two lists are the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fss.data.index import Index
from fss.data.readers.reader import Reader
from fss.files.digests import digest, stem
from fss.files.text import read_text


class ListFacts(NamedTuple):
    """How long a list is and which.

    Attributes:
        pictures: Their number.
        sha256: `digest` of their stems in order.
    """

    pictures: int
    sha256: str


def facts(reader: Reader, numbers: Iterable[int]) -> ListFacts:
    """Of some pictures of a reader, in the order of their numbers as given."""
    stems = [stem(reader.name(number)) for number in numbers]
    return ListFacts(len(stems), digest(stems))


class Listed:
    """Some pictures of a reader in another order.

    Args:
        reader: Where they come from.
        numbers: Their numbers there.
    """

    def __init__(self, reader: Reader, numbers: Sequence[int]) -> None:
        self._reader, self._numbers = reader, numbers
        self.classes = reader.classes

    def __len__(self) -> int:
        return len(self._numbers)

    def name(self, index: int) -> str:
        return self._reader.name(self._numbers[index])

    def image(self, index: int) -> np.ndarray:
        return self._reader.image(self._numbers[index])

    def mask(self, index: int) -> np.ndarray:
        return self._reader.mask(self._numbers[index])


def in_order(reader: Reader, index: Index, file: str | Path) -> tuple[Listed, Index]:
    """The pictures that a list names, in its order, and their index.

    Args:
        reader: All pictures.
        index: Of the reader.
        file: A picture a line, by its stem, its name or a path to it, with or without its mask behind a blank
            ("JPEGImages/x.jpg SegmentationClassAug/x.png"); empty lines do not count.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It names no picture, one that is not there, one twice, or one that could be several.
    """
    numbers = _numbers(reader, Path(file))
    place = np.full(len(reader), -1)
    place[numbers] = np.arange(len(numbers))
    kept = place[index.image] >= 0
    image, class_id, pixels = place[index.image[kept]], index.class_id[kept], index.pixels[kept]
    row = np.lexsort((class_id, image))
    return Listed(reader, numbers), Index(image[row], class_id[row], pixels[row])


def _numbers(reader: Reader, file: Path) -> list[int]:
    if not file.is_file():
        raise FileNotFoundError(f"dataset.eval_list={file}: no such file; give a list of pictures, one a line")
    lines = [line.strip() for line in read_text(file).splitlines()]
    paths = [Path(reader.name(number)) for number in range(len(reader))]
    of_stem: dict[str, list[int]] = {}
    for number, path in enumerate(paths):
        of_stem.setdefault(path.stem, []).append(number)
    numbers: dict[int, int] = {}  # picture to line
    for count, line in enumerate(lines, start=1):
        if not line:
            continue
        where = f"dataset.eval_list={file}, line {count}"
        candidates: list[int] = []
        for wanted in _pictures(line):
            # a stem may hold a dot itself
            if candidates := of_stem.get(wanted.name) or of_stem.get(wanted.stem, []):
                break
        if len(candidates) > 1:  # as FSS-1000's 1.jpg of every class: folders tell them apart
            ends = {number: _shared_end(paths[number].parent, wanted.parent) for number in candidates}
            candidates = [number for number in candidates if ends[number] == max(ends.values())]
        if not candidates:
            raise ValueError(
                f"{where}: {line!r} is none of the {len(paths)} pictures, whose first is {paths[0]}; take it from "
                "the list, or get the picture"
            )
        if len(candidates) > 1:
            raise ValueError(
                f"{where}: {line!r} may be {' or '.join(str(paths[n]) for n in candidates[:2])}; list folders too"
            )
        if (number := candidates[0]) in numbers:
            raise ValueError(f"{where}: {line!r} is in line {numbers[number]} already; list each picture once")
        numbers[number] = count
    if not numbers:
        raise ValueError(f"dataset.eval_list={file} lists no picture: list one a line")
    return list(numbers)


def _pictures(line: str) -> list[Path]:
    """What a line may mean, likeliest first: a picture and its mask, or one path, which may hold blanks."""
    first, *rest = line.split(maxsplit=1)
    ways = [Path(line), Path(first)]
    return ways[::-1] if rest and stem(first) == stem(rest[0]) else ways


def _shared_end(one: Path, other: Path) -> int:
    """How many folders two paths have in common, from the last on."""
    count = 0
    for a, b in zip(reversed(one.parts), reversed(other.parts), strict=False):
        if a != b:
            break
        count += 1
    return count
