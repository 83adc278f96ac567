"""PASCAL-5i: VOC 2012 with the additional masks of SBD, in the layout created by `fss.data.prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from fss.data import index_cache
from fss.data.readers.pictures import absent, image_size, read_image, read_mask

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

    Raises:
        FileNotFoundError: If root, list, pictures or masks are missing; the message names them.
        ValueError: If the image set is unknown or its list is empty.
    """

    classes = CLASSES

    def __init__(self, root: str, image_set: Literal["train", "val"]) -> None:
        if image_set not in LISTS:
            raise ValueError(f"image_set={image_set!r} of PASCAL-5i: must be 'train' or 'val'")
        base = find_voc(Path(root))
        listed = base / LISTS[image_set]
        if not listed.is_file():
            raise FileNotFoundError(f"no {listed}: {_mend(root)}")
        self._base, self._stems = base, read_list(listed)
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
        return str(self._image(index))

    def image(self, index: int) -> np.ndarray:
        return read_image(self._image(index))

    def mask(self, index: int) -> np.ndarray:
        return read_mask(self._mask(index))

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self._image(index))

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
    """Reads the stems in a list of pictures, which has one per line."""
    return path.read_text().split()


def _mend(root: str | Path) -> str:
    return f"run `python -m fss.data.prepare pascal5i --root {root}`"
