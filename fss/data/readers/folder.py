"""Your own pictures and masks, from one folder."""

from __future__ import annotations

import logging
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fss.data import index_cache
from fss.data.readers.annotated_folder import ANNOTATIONS, AnnotatedFolder
from fss.data.readers.pictures import image_size, read_image, read_mask
from fss.data.readers.reader import Reader
from fss.labels import IGNORE, MAX_CLASSES

logger = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def open_folder(root: str) -> Reader:
    """The reader of own pictures: with objects in `annotations.json` (`AnnotatedFolder`) or with masks (`Folder`).

    Args:
        root: Folder that holds either.

    Raises:
        FileNotFoundError: Pictures, or what they show, are missing.
        ValueError: Both are there, or they cannot be used.
    """
    if not Path(root, ANNOTATIONS).is_file():
        return Folder(root)
    if Path(root, "masks").is_dir():
        raise ValueError(f"{root} holds both {ANNOTATIONS} and masks/: move away the one that is not to be used")
    return AnnotatedFolder(root)


class Folder:
    """Pictures in `images/`, masks in `masks/`, names of classes in `classes.txt`.

    Masks are either `masks/STEM.png` with a class id for each pixel (one channel or a palette; 0 background, 255
    ignored), or `masks/CLASS/STEM.png` with 0 for background and one other number for the class, for every class
    that the picture shows; where two overlap, the later class wins.

    `classes.txt` has a name a line, class 1 first. Without it, classes are the folders of masks in alphabetical
    order, or "class 1" to the greatest class id there is.

    What is wrong with single files is found by the scan of the masks (`build_index`), all of it at once.

    Args:
        root: Folder that holds all this.

    Raises:
        FileNotFoundError: There are no pictures or no masks.
        ValueError: Classes and masks do not fit together.
    """

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        if not self._root.is_dir():
            raise FileNotFoundError(
                f"no folder {root}: set dataset.root to a folder with images/, and masks/ or {ANNOTATIONS}"
            )
        self._masks = self._root / "masks"
        self._pictures = self._find_pictures()
        if not self._masks.is_dir() or not any(self._masks.iterdir()):
            raise FileNotFoundError(
                f"no masks in {self._masks}: put STEM.png or CLASS/STEM.png for each picture, or objects in "
                f"COCO's format into {self._root / ANNOTATIONS}"
            )
        self._class_folders = sorted(path.name for path in self._masks.iterdir() if path.is_dir())
        self._mask_paths = self._find_masks()
        self.classes = self._find_classes()
        if not 0 < len(self.classes) <= MAX_CLASSES:
            raise ValueError(f"{root} has {len(self.classes)} classes, must be 1 to {MAX_CLASSES}")
        self.cache = self._root / index_cache.FOLDER / "folder.npz"

    def __len__(self) -> int:
        return len(self._pictures)

    def name(self, index: int) -> str:
        return str(self._pictures[index])

    def image(self, index: int) -> np.ndarray:
        return read_image(self._pictures[index])

    def mask(self, index: int) -> np.ndarray:
        picture = self._pictures[index]
        paths = self._mask_paths.get(picture.stem)
        if not paths:
            wanted = self._masks / ("CLASS" if self._class_folders else "") / f"{picture.stem}.png"
            raise FileNotFoundError(f"{picture}: has no mask {wanted}: add it, or remove the picture")
        if not self._class_folders:
            return read_mask(paths[0])
        by_class = sorted((self.classes.index(path.parent.name) + 1, path) for path in paths)
        regions = [(c, path, _read_region(path)) for c, path in by_class]
        mask = np.zeros_like(regions[0][2], np.uint8)
        for c, path, region in regions:
            if region.shape != mask.shape:
                raise ValueError(f"{path}: is of another size than {by_class[0][1]}")
            mask[region] = c
        return mask

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self._pictures[index])

    def files(self) -> list[Path]:
        return [*self._pictures, *(path for paths in self._mask_paths.values() for path in paths)]

    def _find_pictures(self) -> list[Path]:
        folder = self._root / "images"
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        pictures = [path for path in found if path.suffix.lower() in SUFFIXES]
        if not pictures:
            raise FileNotFoundError(f"no pictures in {folder}: put them there ({', '.join(sorted(SUFFIXES))})")
        by_stem = {path.stem: path for path in pictures}
        if twins := [path for path in pictures if by_stem[path.stem] != path]:
            raise ValueError(f"{twins[0]} and {by_stem[twins[0].stem]} would share a mask: rename one of them")
        return pictures

    def _find_masks(self) -> dict[str, list[Path]]:
        """By the stem of their picture."""
        masks = defaultdict(list)
        for path in sorted(self._masks.glob("*/*.png" if self._class_folders else "*.png")):
            masks[path.stem].append(path)
        if orphans := sorted(masks.keys() - {picture.stem for picture in self._pictures}):
            logger.warning("%d masks in %s have no picture: %s", len(orphans), self._masks, ", ".join(orphans))
            for stem in orphans:
                del masks[stem]
        return dict(masks)

    def _find_classes(self) -> tuple[str, ...]:
        listed = self._root / "classes.txt"
        if listed.is_file():
            lines = listed.read_text(encoding="utf-8-sig").splitlines()
            names = tuple(line.strip() for line in lines if line.strip())
            if len(set(names)) < len(names):
                raise ValueError(f"{listed} names a class twice: give each its own name")
            if unknown := [name for name in self._class_folders if name not in names]:
                raise ValueError(f"{self._masks} has folders that {listed} does not name: {', '.join(unknown)}")
            return names
        if self._class_folders:
            return tuple(self._class_folders)
        with ThreadPoolExecutor() as pool:
            paths = (path for paths in self._mask_paths.values() for path in paths)
            n = max(pool.map(_greatest_id, paths), default=0)
        if n == 0:
            raise ValueError(
                f"the masks in {self._masks} hold no class id ({IGNORE} is ignored): put masks of 0 and {IGNORE} "
                "into a folder for each class, masks/CLASS/STEM.png"
            )
        return tuple(f"class {c}" for c in range(1, n + 1))


def _greatest_id(path: Path) -> int:
    try:
        mask = read_mask(path)
    except ValueError:  # the scan will name it, with all the others
        return 0
    return int(np.max(mask, where=mask != IGNORE, initial=0))


def _read_region(path: Path) -> np.ndarray:
    """(h, w) bool: where a mask of one class is not 0."""
    mask = read_mask(path)
    values = np.unique(mask)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise ValueError(
            f"{path}: holds the numbers {', '.join(map(str, values[:5]))}{' ...' if len(values) > 5 else ''}; a "
            "mask in a folder of one class has 0 and one other"
        )
    return mask != 0
