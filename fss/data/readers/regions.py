"""Pictures of one class each, whose masks are black and white files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fss.data.readers.pictures import MAX_PIXELS, image_size, read_image, read_region
from fss.files.text import printable


class Item(NamedTuple):
    """A picture, its 1-based class id, and the file of its mask."""

    class_id: int
    picture: Path
    mask: Path


class Official(NamedTuple):
    """How many pictures a data set's official archives give a reader, and who says so."""

    pictures: int
    source: str


class Regions:
    """A reader of pictures with one class each; what is bright in a mask belongs to it.

    A mask of another size than its picture is resized to it (nearest), and told.

    Args:
        classes: Class names.
        items: The pictures, in order.
        cache: File in which the index is cached.
        max_pixels: Pictures with more pixels are refused before they are decoded.
        official: What `fss.data.check` compares the number of pictures with; None if no source is known for it.
        lists: Files that say of pictures which class they show.
    """

    def __init__(
        self,
        classes: Sequence[str],
        items: Iterable[Item],
        cache: Path,
        max_pixels: int = MAX_PIXELS,
        official: Official | None = None,
        lists: Sequence[Path] = (),
    ) -> None:
        self.classes, self.cache, self.official = tuple(classes), cache, official
        self._items, self._max_pixels, self._lists = list(items), max_pixels, lists

    def __len__(self) -> int:
        return len(self._items)

    def name(self, index: int) -> str:
        return printable(self._items[index].picture)

    def image(self, index: int) -> np.ndarray:
        return read_image(self._items[index].picture, self._max_pixels)

    def mask(self, index: int) -> np.ndarray:
        region = read_region(self._items[index].mask, self._max_pixels).view(np.uint8)
        return fitted(region, self.size(index)) * np.uint8(self._items[index].class_id)

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self._items[index].picture, self._max_pixels)

    def remark(self, index: int, mask: np.ndarray) -> str:
        path = self._items[index].mask
        if not mask.any():
            return f"{printable(path)} shows no object"
        return resized(path, mask.shape, self._max_pixels)

    def pictures(self) -> list[Path]:
        return [item.picture for item in self._items]

    def files(self) -> list[Path]:
        return [*self._lists, *self.pictures(), *(item.mask for item in self._items)]


def fitted(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (h, w) uint8 in the size (h, w) of its picture."""
    if mask.shape == size:
        return mask
    return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def resized(path: Path, size: Sequence[int], max_pixels: int) -> str:
    """What to tell of a mask file that has another size (h, w) than its picture; empty if it has the same."""
    (height, width), (own_height, own_width) = size, image_size(path, max_pixels)
    if (own_height, own_width) == (height, width):
        return ""
    return f"{printable(path)} ({own_width} x {own_height} pixels) is resized to its picture's {width} x {height}"


def with_suffix(folder: Path, *suffixes: str) -> list[Path]:
    """The visible files of a folder with a suffix, in either case, sorted; none if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def beside(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their stem, for masks whose suffix may be written in either case."""
    return {path.stem: path for path in with_suffix(folder, ".png", ".bmp", ".jpg", ".jpeg")}


def below(root: str, inside: str, what: str) -> Path:
    """The folder of a data set: `root/inside` if there is one, else `root`.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise FileNotFoundError(
            f"no folder {printable(root)}: set dataset.root to the folder that contains {what}"
        )
    return base / inside if (base / inside).is_dir() else base
