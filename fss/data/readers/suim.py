"""SUIM (Islam et al., IROS 2020): underwater pictures, with a colour for each of seven classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fss.data import index_cache
from fss.data.readers.pictures import MAX_PIXELS, image_size, read_colours, read_image
from fss.data.readers.regions import Item, Official, Regions, below, beside, fitted, resized, with_suffix
from fss.files.text import printable

# Class id c has the colour whose red, green and blue are the bits of c: 1 is blue, 6 yellow.
CLASSES = ("diver", "plant", "wreck", "robot", "reef", "fish", "sea floor")
CODES = ("HD", "PF", "WR", "RO", "RI", "FV", "SR")
PARTS = ("train_val", "TEST")
OFFICIAL = Official(1525 + 110, "README of github.com/xahidbuffon/SUIM, its authors: 1525 and 110")


def open_suim(root: str, max_pixels: int = MAX_PIXELS) -> Suim | Regions:
    """Opens SUIM as its archives have it (`Suim`), or with a black and white mask for each class.

    In the latter layout, which followers of PATNet use, pictures are `images/STEM.jpg` and masks
    `masks/CODE/STEM.bmp`, CODE being HD, PF, WR, RO, RI, FV or SR; a picture then comes once for each mask.

    Args:
        root: Folder that contains `train_val/` and `TEST/`, or `images/` and `masks/`.
        max_pixels: Pictures with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: If there is no such folder, or no picture in it.
    """
    base = below(root, "SUIM", "SUIM")
    if not any((base / "masks" / code).is_dir() for code in CODES):
        return Suim(base, max_pixels)
    pictures = beside(base / "images")
    items = [
        Item(class_id, pictures.get(mask.stem, base / f"images/{mask.stem}.jpg"), mask)
        for class_id, code in enumerate(CODES, start=1)
        for mask in with_suffix(base / "masks" / code, ".bmp", ".png")
    ]
    if not items:
        raise FileNotFoundError(f"no masks in {base / 'masks'}/{CODES[0]} and so on: put CODE/STEM.bmp there")
    return Regions(CLASSES, items, base / index_cache.FOLDER / "suim-classes.npz", max_pixels)


class Suim:
    """Pictures `PART/images/STEM.jpg` with masks `PART/masks/STEM.bmp` of both parts, train_val and TEST.

    Each channel of a mask counts as 0 or 255, whichever is nearer, as in the authors' program: some masks have
    other colours at edges. Black, water, is background. Some are of another size than their picture: they are
    resized to it (nearest), and told.
    """

    official = OFFICIAL

    def __init__(self, base: Path, max_pixels: int = MAX_PIXELS) -> None:
        self.classes, self._max_pixels = CLASSES, max_pixels
        self._items = []
        for part in PARTS:
            masks = beside(base / part / "masks")
            self._items += [
                (picture, masks.get(picture.stem, base / part / f"masks/{picture.stem}.bmp"))
                for picture in with_suffix(base / part / "images", ".jpg")
            ]
        if not self._items:
            raise FileNotFoundError(
                f"no pictures in {base / PARTS[0] / 'images'}: set dataset.root to the folder that contains "
                f"{PARTS[0]} and {PARTS[1]} of SUIM"
            )
        self.cache = base / index_cache.FOLDER / "suim.npz"

    def __len__(self) -> int:
        return len(self._items)

    def name(self, index: int) -> str:
        return printable(self._items[index][0])

    def image(self, index: int) -> np.ndarray:
        return read_image(self._items[index][0], self._max_pixels)

    def mask(self, index: int) -> np.ndarray:
        colours = read_colours(self._items[index][1], self._max_pixels)  # (h, w, 3)
        return fitted(colours @ np.array([4, 2, 1], np.uint8), self.size(index))

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self._items[index][0], self._max_pixels)

    def remark(self, index: int, mask: np.ndarray) -> str:
        return resized(self._items[index][1], mask.shape, self._max_pixels)

    def pictures(self) -> list[Path]:
        return [picture for picture, _ in self._items]

    def files(self) -> list[Path]:
        return [*self.pictures(), *(mask for _, mask in self._items)]
