"""PASCAL-5i: VOC 2012 with the additional masks of SBD, in the layout created by `fss.data.prepare`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from fss.data import index_cache
from fss.data.readers.pictures import MAX_PIXELS, absent, image_size, read_image, read_mask
from fss.files.text import is_file_name, printable, read_text, some

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
# The training list is the union of VOC's and SBD's (5953 pictures); no archive contains it.
LISTS = {"train": "ImageSets/Segmentation/train-5i.txt", "val": "ImageSets/Segmentation/val.txt"}


class Pascal:
    """Pictures of VOC 2012 named in a list, with class ids 1 to 20 and ignored object borders.

    Args:
        root: The folder VOC2012, or a folder that contains it or VOCdevkit/VOC2012.
        image_set: "train" or "val".
        max_pixels: Pictures with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: If root, list, pictures or masks are missing; the message names them.
        ValueError: If the image set is unknown or its list is empty.
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
                    f"{len(missing)} of the {len(self)} {what} of {listed} are missing, the first is "
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
    """Finds the folder VOC2012: root itself or a folder below it.

    Raises:
        FileNotFoundError: If it is missing.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: set dataset.root to the folder that contains VOC2012")
    for folder in (root, root / "VOC2012", root / "VOCdevkit/VOC2012"):
        if (folder / IMAGES).is_dir():
            return folder
    raise FileNotFoundError(f"no {IMAGES}/ in {root}, {root}/VOC2012 or {root}/VOCdevkit/VOC2012: {_mend(root)}")


def read_list(path: Path) -> list[str]:
    """Reads the stems in a list of pictures, which has one per line.

    Raises:
        ValueError: If it is not text, lists a picture twice, or a stem leads out of the folder of pictures.
    """
    stems = read_text(path).split()
    if odd := [ascii(stem[:60]) for stem in stems if "/" in stem or not is_file_name(stem)]:
        raise ValueError(f"{printable(path)} lists what cannot be the name of a picture: {some(odd, 3)}")
    if twins := [stem for stem, count in Counter(stems).items() if count > 1]:
        raise ValueError(f"{printable(path)} lists pictures twice: {some(twins, 3)}")
    return stems


def _mend(root: str | Path) -> str:
    return f"run `python -m fss.data.prepare pascal5i --root {root}`"
