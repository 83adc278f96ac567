"""Your own pictures with their objects in a single file in COCO format, as exported by annotation tools."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fss.data import index_cache
from fss.data.readers.coco import Drawing, draw
from fss.data.readers.pictures import absent, image_size, read_image

ANNOTATIONS = "annotations.json"


class AnnotatedFolder:
    """Pictures in `images/`, their objects in `annotations.json`.

    Categories become classes 1, 2, ... in the order of their ids. Where objects overlap, the one that comes later
    in the file takes precedence. Pictures without objects are left out.

    Args:
        root: Folder that contains both.

    Raises:
        FileNotFoundError: If pictures named in the file are missing.
        ValueError: If the file cannot be read.
    """

    def __init__(self, root: str) -> None:
        self._annotations, self._folder = Path(root, ANNOTATIONS), Path(root, "images")
        self._drawing = Drawing(self._annotations, crowd="include")
        self.classes = self._drawing.classes
        self.cache = Path(root, index_cache.FOLDER, "folder.npz")
        if missing := absent([self.name(i) for i in range(len(self))]):
            raise FileNotFoundError(
                f"{len(missing)} of the {len(self)} pictures of {self._annotations} are missing, the first is "
                f"{missing[0]}: put them into {self._folder}, or remove them from the file"
            )

    def __len__(self) -> int:
        return len(self._drawing.pictures)

    def name(self, index: int) -> str:
        return os.path.join(self._folder, self._drawing.pictures[index])

    def image(self, index: int) -> np.ndarray:
        return read_image(Path(self.name(index)))

    def mask(self, index: int) -> np.ndarray:
        return draw(self._drawing.task(index))

    def size(self, index: int) -> tuple[int, int]:
        return image_size(Path(self.name(index)))

    def files(self) -> list[str | Path]:
        return [self._annotations, *(self.name(i) for i in range(len(self)))]
