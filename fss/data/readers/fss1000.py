"""FSS-1000 (Li et al., CVPR 2020) in its original layout: ten pictures of each of 1000 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fss.data import index_cache
from fss.data.readers.pictures import image_size, read_image, read_region


class FSS1000:
    """Pictures `CLASS/1.jpg` to `CLASS/10.jpg` with masks `CLASS/1.png` to `CLASS/10.png` of one object each.

    Classes are the folders in alphabetical order. Masks are uint16, because there are too many classes for uint8.

    Args:
        root: Folder that contains the class folders, either directly or in `fewshot_data/`.

    Raises:
        FileNotFoundError: If there is no such folder, or no class in it.
    """

    def __init__(self, root: str) -> None:
        base = Path(root)
        if not base.is_dir():
            raise FileNotFoundError(f"no folder {root}: set dataset.root to the folder that contains FSS-1000")
        if (base / "fewshot_data").is_dir():
            base = base / "fewshot_data"
        found = {folder: _numbered(folder) for folder in sorted(base.iterdir()) if folder.is_dir()}
        found = {folder: pictures for folder, pictures in found.items() if pictures}
        if not found:
            raise FileNotFoundError(
                f"no CLASS/1.jpg in {base}: set dataset.root to the folder that contains the classes of FSS-1000"
            )
        self.classes = tuple(folder.name for folder in found)
        self._pictures = [(c, path) for c, pictures in enumerate(found.values(), start=1) for path in pictures]
        self.cache = base / index_cache.FOLDER / "fss1000.npz"

    def __len__(self) -> int:
        return len(self._pictures)

    def name(self, index: int) -> str:
        return str(self._pictures[index][1])

    def image(self, index: int) -> np.ndarray:
        return read_image(self._pictures[index][1])

    def mask(self, index: int) -> np.ndarray:
        class_id, picture = self._pictures[index]
        return read_region(picture.with_suffix(".png")).astype(np.uint16) * np.uint16(class_id)

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self._pictures[index][1])

    def files(self) -> list[Path]:
        pictures = [path for _, path in self._pictures]
        return [*pictures, *(path.with_suffix(".png") for path in pictures)]


def _numbered(folder: Path) -> list[Path]:
    """Pictures of a class in numerical order."""
    return sorted(
        (path for path in folder.glob("*.jpg") if path.stem.isdecimal()), key=lambda path: int(path.stem)
    )
