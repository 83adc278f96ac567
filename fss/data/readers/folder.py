"""Your own pictures and masks, from one folder."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np

from fss.data import index_cache
from fss.data.readers.annotated_folder import ANNOTATIONS, AnnotatedFolder
from fss.data.readers.class_names import class_folders, class_name, read_class_names
from fss.data.readers.matched import Matched
from fss.data.readers.pictures import MAX_PIXELS, SUFFIXES, image_size, read_image, read_mask
from fss.data.readers.reader import Reader
from fss.files.text import printable, some
from fss.labels import IGNORE, MAX_CLASSES

logger = logging.getLogger(__name__)


def open_folder(root: str, like: str | None = None, max_pixels: int = MAX_PIXELS) -> Reader:
    """Opens your own pictures, with objects in `annotations.json` (`AnnotatedFolder`) or with masks (`Folder`).

    Args:
        root: Folder that contains either.
        like: Another such folder, whose class ids are used: classes are matched by name (`Matched`). None, or the
            same folder, uses the class ids as they are.
        max_pixels: Pictures with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: If pictures, annotations or masks are missing.
        ValueError: If both annotations and masks exist, if they cannot be used, or if `like` lacks one of the
            classes.
    """
    reader = _open(Path(root).expanduser(), max_pixels)
    if like is None or Path(like).expanduser().resolve() == Path(root).expanduser().resolve():
        return reader
    return Matched(reader, _open(Path(like).expanduser(), max_pixels).classes, root, like)


def _open(root: Path, max_pixels: int) -> Folder | AnnotatedFolder:
    if not (root / ANNOTATIONS).is_file():
        return Folder(str(root), max_pixels)
    if (root / "masks").is_dir():
        raise ValueError(
            f"{printable(root)} contains both {ANNOTATIONS} and masks/: move away the one you do not want"
        )
    return AnnotatedFolder(str(root), max_pixels)


class Folder:
    """Pictures in `images/`, masks in `masks/`, class names in `classes.txt`.

    Masks are either `masks/STEM.png` with a class id for each pixel (one channel or a palette; 0 background, 255
    ignored), or `masks/CLASS/STEM.png` for each class in the picture, with 0 for background and one other value
    for the class; where two classes overlap, the later one takes precedence.

    `classes.txt` has one name per line, starting with class 1. Without it, the classes are the folders of masks in
    alphabetical order, or "class 1" up to the largest class id in the masks.

    Problems with individual files are found by the scan of the masks (`build_index`), which reports all of them.

    Args:
        root: Folder that contains all of these.
        max_pixels: Pictures with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: If there are no pictures or no masks.
        ValueError: If classes and masks do not match.
    """

    def __init__(self, root: str, max_pixels: int = MAX_PIXELS) -> None:
        self._root, self._max_pixels = Path(root).expanduser(), max_pixels
        if not self._root.is_dir():
            raise FileNotFoundError(
                f"no folder {root}: set dataset.root to a folder with images/, and masks/ or {ANNOTATIONS}"
            )
        self._masks = self._root / "masks"
        self._pictures = self._find_pictures()
        if not self._masks.is_dir() or not any(_visible(self._masks)):
            raise FileNotFoundError(
                f"no masks in {self._masks}: add STEM.png or CLASS/STEM.png for each picture, or put objects in "
                f"COCO format into {self._root / ANNOTATIONS}"
            )
        self._class_folders = class_folders(self._masks)
        self._mask_paths = self._find_masks()
        self.classes = self._find_classes()
        if not 0 < len(self.classes) <= MAX_CLASSES:
            raise ValueError(f"{root} has {len(self.classes)} classes, must be 1 to {MAX_CLASSES}")
        self.cache = self._root / index_cache.FOLDER / "folder.npz"

    def __len__(self) -> int:
        return len(self._pictures)

    def name(self, index: int) -> str:
        return printable(self._pictures[index])

    def image(self, index: int) -> np.ndarray:
        return read_image(self._pictures[index], self._max_pixels)

    def mask(self, index: int) -> np.ndarray:
        picture = self._pictures[index]
        paths = self._mask_paths.get(picture.stem)
        if not paths:
            wanted = self._masks / ("CLASS" if self._class_folders else "") / f"{picture.stem}.png"
            raise FileNotFoundError(f"{picture}: has no mask {wanted}: add it or remove the picture")
        if not self._class_folders:
            return _read_labels(paths[0], self._max_pixels)
        by_class = sorted((self.classes.index(class_name(path.parent.name)) + 1, path) for path in paths)
        regions = [(c, path, _read_region(path, self._max_pixels)) for c, path in by_class]
        mask = np.zeros_like(regions[0][2], np.uint8)
        for c, path, region in regions:
            if region.shape != mask.shape:
                raise ValueError(f"{path}: differs in size from {by_class[0][1]}")
            mask[region] = c
        return mask

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self._pictures[index], self._max_pixels)

    def pictures(self) -> list[Path]:
        return self._pictures

    def files(self) -> list[Path]:
        return [*self._pictures, *(path for paths in self._mask_paths.values() for path in paths)]

    def remark(self, index: int, mask: np.ndarray) -> str:
        if not self._class_folders:
            if (mask == IGNORE).any() and not ((mask > 0) & (mask < IGNORE)).any():
                return (
                    f"the mask of {self.name(index)} holds {IGNORE} (ignored) and no class id; masks of 0 and "
                    f"{IGNORE} belong in masks/CLASS/"
                )
            return ""
        shown = {self.classes[c - 1] for c in np.unique(mask).tolist() if c}
        paths = self._mask_paths[self._pictures[index].stem]
        if hidden := sorted({class_name(path.parent.name) for path in paths} - shown):
            return f"{self.name(index)} shows no pixel of {some(hidden)}, its mask is empty or covered by others"
        return ""

    def _find_pictures(self) -> list[Path]:
        folder = self._root / "images"
        found = sorted(_visible(folder)) if folder.is_dir() else []
        pictures = [path for path in found if path.suffix.lower() in SUFFIXES]
        if not pictures:
            raise FileNotFoundError(f"no pictures in {folder}: put them there ({', '.join(sorted(SUFFIXES))})")
        by_stem = {path.stem: path for path in pictures}
        if twins := [path for path in pictures if by_stem[path.stem] != path]:
            raise ValueError(f"{twins[0]} and {by_stem[twins[0].stem]} would share a mask: rename one of them")
        return pictures

    def _find_masks(self) -> dict[str, list[Path]]:
        """Mask paths, keyed by the stem of their picture."""
        masks = defaultdict(list)
        for folder in self._class_folders.values() if self._class_folders else [self._masks]:
            for path in sorted(_visible(folder)):
                if path.suffix == ".png":
                    masks[path.stem].append(path)
        if orphans := sorted(masks.keys() - {picture.stem for picture in self._pictures}):
            told = some(map(printable, orphans))
            logger.warning("%d masks in %s have no picture: %s", len(orphans), printable(self._masks), told)
            for stem in orphans:
                del masks[stem]
        return dict(masks)

    def _find_classes(self) -> tuple[str, ...]:
        listed = self._root / "classes.txt"
        if listed.is_file():
            names = read_class_names(listed)
            if unknown := [name for name in self._class_folders if name not in names]:
                raise ValueError(f"{self._masks} has folders that {listed} does not name: {some(unknown)}")
            return names
        if self._class_folders:
            return tuple(self._class_folders)
        with ThreadPoolExecutor() as pool:
            paths = [path for paths in self._mask_paths.values() for path in paths]
            found = list(pool.map(_greatest_id, paths, repeat(self._max_pixels)))
        n = max((each for each in found if isinstance(each, int)), default=0)
        if n == 0:
            for error in found:
                if isinstance(error, ValueError):
                    raise error
            raise ValueError(
                f"the masks in {self._masks} contain no class id ({IGNORE} is ignored): put masks of 0 and "
                f"{IGNORE} into one folder per class, masks/CLASS/STEM.png"
            )
        return tuple(f"class {c}" for c in range(1, n + 1))


def _visible(folder: Path) -> Iterator[Path]:
    """What a folder holds, without what editors and file managers hide there (`.ipynb_checkpoints`, `._name`)."""
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _greatest_id(path: Path, max_pixels: int) -> int | ValueError:
    """The greatest class id of a mask, or why it cannot be read: where others can, the scan reports it later."""
    try:
        mask = _read_labels(path, max_pixels)
    except ValueError as error:
        return error
    return int(np.max(mask, where=mask != IGNORE, initial=0))


def _read_labels(path: Path, max_pixels: int) -> np.ndarray:
    """(h, w) uint8 class ids of a mask."""
    mask = read_mask(path, max_pixels)
    # the values of a label map change only at the edges of objects
    changing = np.count_nonzero(mask[:, 1:] != mask[:, :-1])
    if changing > 0.2 * mask.size and len(np.unique(mask)) > 32:
        raise ValueError(
            f"{path} looks like a photograph, its numbers change from pixel to pixel: a mask has one class id for "
            "all pixels of an object"
        )
    return mask


def _read_region(path: Path, max_pixels: int) -> np.ndarray:
    """(h, w) bool: the pixels of a single-class mask that are not 0."""
    mask = read_mask(path, max_pixels)
    values = np.unique(mask)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise ValueError(
            f"{path}: contains the values {', '.join(map(str, values[:5]))}{' ...' if len(values) > 5 else ''}; a "
            "mask in a class's folder must have 0 and one other value"
        )
    return mask != 0
