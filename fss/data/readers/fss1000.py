"""FSS-1000 (Li et al., CVPR 2020) in its original layout: ten pictures of each of 1000 classes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fss.data import index_cache
from fss.data.readers.class_names import class_folders
from fss.data.readers.pictures import MAX_PIXELS, image_size, read_image, read_region
from fss.files.text import printable


class FSS1000:
    """Pictures `CLASS/1.jpg` to `CLASS/10.jpg` with masks `CLASS/1.png` to `CLASS/10.png` of one object each.

    Classes are the folders in alphabetical order. Masks are uint16, because there are too many classes for uint8.

    A few masks of the archive are of another size than their picture: they are resized to it (nearest), and told.

    Args:
        root: Folder that contains the class folders, either directly or in `fewshot_data/`.
        max_pixels: Pictures with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: If there is no such folder, or no class in it.
    """

    def __init__(self, root: str, max_pixels: int = MAX_PIXELS) -> None:
        base = Path(root).expanduser()
        if not base.is_dir():
            raise FileNotFoundError(f"no folder {root}: set dataset.root to the folder that contains FSS-1000")
        if (base / "fewshot_data").is_dir():
            base = base / "fewshot_data"
        found = {name: _numbered(folder) for name, folder in class_folders(base).items()}
        found = {name: pictures for name, pictures in found.items() if pictures}
        if not found:
            raise FileNotFoundError(
                f"no CLASS/1.jpg in {base}: set dataset.root to the folder that contains the classes of FSS-1000"
            )
        self.classes = tuple(found)
        self._pictures = [(c, path) for c, pictures in enumerate(found.values(), start=1) for path in pictures]
        self._max_pixels = max_pixels
        self.cache = base / index_cache.FOLDER / "fss1000.npz"

    def __len__(self) -> int:
        return len(self._pictures)

    def name(self, index: int) -> str:
        return printable(self._pictures[index][1])

    def image(self, index: int) -> np.ndarray:
        return read_image(self._pictures[index][1], self._max_pixels)

    def mask(self, index: int) -> np.ndarray:
        class_id, picture = self._pictures[index]
        region = read_region(picture.with_suffix(".png"), self._max_pixels)
        height, width = self.size(index)
        if region.shape != (height, width):
            resized = cv2.resize(region.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
            region = resized.astype(bool)
        return region.astype(np.uint16) * np.uint16(class_id)

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self._pictures[index][1], self._max_pixels)

    def remark(self, index: int, mask: np.ndarray) -> str:
        path = self._pictures[index][1].with_suffix(".png")
        if not mask.any():
            return f"{printable(path)} shows no object"
        (height, width), (own_height, own_width) = mask.shape, image_size(path, self._max_pixels)
        if (own_height, own_width) == (height, width):
            return ""
        return (
            f"{printable(path)} ({own_width} x {own_height} pixels) is resized to its picture's {width} x {height}"
        )

    def pictures(self) -> list[Path]:
        return [path for _, path in self._pictures]

    def files(self) -> list[Path]:
        return [*self.pictures(), *(path.with_suffix(".png") for path in self.pictures())]


def _numbered(folder: Path) -> list[Path]:
    """Pictures of a class in numerical order."""
    return sorted(
        (path for path in folder.glob("*.jpg") if path.stem.isdecimal()), key=lambda path: int(path.stem)
    )
