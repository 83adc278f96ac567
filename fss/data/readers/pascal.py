"""PASCAL-5i: VOC 2012 with the additional masks of SBD, as `fss.data.prepare` lays them out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from fss.data import index_cache
from fss.data.readers.pictures import MAX_PIXELS, absent, image_size, read_image, read_mask
from fss.text import is_file_name, printable, read_text, some

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
IMAGES = "JPEGImages"
MASKS = "SegmentationClassAug"
# Training: VOC's list united with SBD's (5953 pictures), which no archive holds.
LISTS = {"train": "ImageSets/Segmentation/train-5i.txt", "val": "ImageSets/Segmentation/val.txt"}


class Pascal:
    """Pictures of VOC 2012 by list, with class ids 1 to 20 and ignored borders.

    Args:
        root: The folder VOC2012, or one that holds it or VOCdevkit/VOC2012.
        image_set: "train" or "val".
        max_pixels: A picture of more is refused before it is decoded.

    Raises:
        FileNotFoundError: Root, list, pictures or masks are missing; the message names them.
        ValueError: Unknown image set, or an empty list.
    """

    classes = CLASSES

    def __init__(self, root: str, image_set: Literal["train", "val"], max_pixels: int = MAX_PIXELS) -> None:
        if image_set not in LISTS:
            raise ValueError(f"image_set={image_set!r} of PASCAL-5i: must be 'train' or 'val'")
        base = find_voc(Path(root).expanduser())
        listed = base / LISTS[image_set]
        if not listed.is_file():
            raise FileNotFoundError(f"no {listed}: {_mend(root)}")
        self._base, self._stems, self._max_pixels = base, read_list(listed), max_pixels
        self.cache = base / index_cache.FOLDER / f"pascal5i-{image_set}.npz"
        if not self._stems:
            raise ValueError(f"{listed} lists no picture: delete it; {_mend(root)}")
        for what, path_of in (("pictures", self._image), ("masks", self._mask)):
            if missing := absent(map(path_of, range(len(self)))):
                raise FileNotFoundError(
                    f"{len(missing)} of the {len(self)} {what} of {listed} are not there, the first is "
                    f"{missing[0]}: {_mend(root)}"
                )

    def __len__(self) -> int:
        return len(self._stems)

    def name(self, index: int) -> str:
        return printable(self._image(index))

    def image(self, index: int) -> np.ndarray:
        return read_image(self._image(index), self._max_pixels)

    def mask(self, index: int) -> np.ndarray:
        return read_mask(self._mask(index), self._max_pixels)

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self._image(index), self._max_pixels)

    def pictures(self) -> list[Path]:
        return [self._image(index) for index in range(len(self))]

    def files(self) -> list[Path]:
        return [path_of(index) for path_of in (self._image, self._mask) for index in range(len(self))]

    def _image(self, index: int) -> Path:
        return self._base / IMAGES / f"{self._stems[index]}.jpg"

    def _mask(self, index: int) -> Path:
        return self._base / MASKS / f"{self._stems[index]}.png"


def find_voc(root: Path) -> Path:
    """The folder VOC2012: root itself or below it.

    Raises:
        FileNotFoundError: It is not there.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: set dataset.root to the folder that holds VOC2012")
    for folder in (root, root / "VOC2012", root / "VOCdevkit/VOC2012"):
        if (folder / IMAGES).is_dir():
            return folder
    raise FileNotFoundError(f"no {IMAGES}/ in {root}, {root}/VOC2012 or {root}/VOCdevkit/VOC2012: {_mend(root)}")


def read_list(path: Path) -> list[str]:
    """The stems that a list of pictures names, one a line, in its order.

    Raises:
        ValueError: It is no text, or one of them leads out of the folder of pictures.
    """
    stems = read_text(path).split()
    if odd := [ascii(stem[:60]) for stem in stems if "/" in stem or not is_file_name(stem)]:
        raise ValueError(f"{printable(path)} lists what is no name of a picture: {some(odd, 3)}")
    if twins := [stem for stem, count in Counter(stems).items() if count > 1]:
        raise ValueError(f"{printable(path)} lists pictures twice: {some(twins, 3)}")
    return stems


def _mend(root: str | Path) -> str:
    return f"run `python -m fss.data.prepare pascal5i --root {root}`"
