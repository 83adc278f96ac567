"""Your own pictures with their objects in a single file in COCO format, as exported by annotation tools."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fss.data import index_cache
from fss.data.readers.coco import Drawing, draw
from fss.data.readers.pictures import MAX_PIXELS, absent, image_size, read_image
from fss.files.text import printable

ANNOTATIONS = "annotations.json"


class AnnotatedFolder:
    """Pictures in `images/`, their objects in `annotations.json`.

    Categories become classes 1, 2, ... in the order of their ids. Where objects overlap, the one that comes later
    in the file takes precedence. Pictures without objects are left out.

    Args:
        root: Folder that contains both.
        max_pixels: Pictures with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: If pictures named in the file are missing.
        ValueError: If the file cannot be read.
    """

    def __init__(self, root: str, max_pixels: int = MAX_PIXELS) -> None:
        base = Path(root).expanduser()
        self._annotations, self._folder, self._max_pixels = base / ANNOTATIONS, base / "images", max_pixels
        self._drawing = Drawing(self._annotations, "include", max_pixels)
        self.classes = self._drawing.classes
        self.cache = base / index_cache.FOLDER / "folder.npz"
        if missing := absent(self.pictures()):
            raise FileNotFoundError(
                f"{len(missing)} of the {len(self)} pictures of {self._annotations} are missing, the first is "
                f"{printable(missing[0])}: put them into {self._folder}, or remove them from the file"
            )

    def __len__(self) -> int:
        return len(self._drawing.pictures)

    def name(self, index: int) -> str:
        return printable(self._path(index))

    def image(self, index: int) -> np.ndarray:
        return read_image(self._path(index), self._max_pixels)

    def mask(self, index: int) -> np.ndarray:
        return draw(self._drawing.task(index))

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self._path(index), self._max_pixels)

    def remark(self, index: int, mask: np.ndarray) -> str:
        return self._drawing.remark(index, mask)

    def pictures(self) -> list[str]:
        return [os.path.join(self._folder, name) for name in self._drawing.pictures]

    def files(self) -> list[str | Path]:
        return [self._annotations, *self.pictures()]

    def _path(self, index: int) -> Path:
        return self._folder / self._drawing.pictures[index]
