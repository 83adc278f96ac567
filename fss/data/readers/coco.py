"""COCO pictures with instance annotations, in the layout of the official archives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fss.data import index_cache
from fss.data.readers.annotations import AnnotatedObject, AnnotatedPicture, read_annotations
from fss.data.readers.coco_classes import COCO_CLASSES
from fss.data.readers.coco_masks import contents_path, folder_of, mask_name, mask_path, read_contents
from fss.data.readers.matched import Matched
from fss.data.readers.pictures import MAX_PIXELS, absent, image_size, read_image, read_mask
from fss.data.readers.reader import Reader
from fss.data.readers.segmentations import region
from fss.files.text import printable, some
from fss.labels import IGNORE

Crowd = Literal["include", "ignore"]


def open_coco(
    root: str,
    image_set: str,
    year: int = 2014,
    crowd: Crowd = "include",
    max_pixels: int = MAX_PIXELS,
    like: str | None = None,
) -> Reader:
    """Opens an image set with the class ids of another one: classes are matched by name (`Matched`).

    The official archives agree in their classes, so their own sets are not compared.

    Args:
        root: See `Coco`.
        image_set: See `Coco`.
        year: See `Coco`.
        crowd: See `Coco`.
        max_pixels: See `Coco`.
        like: The other image set; None uses the class ids as they are.

    Raises:
        FileNotFoundError: See `Coco`.
        ValueError: See `Coco`; or if the other set lacks one of the classes.
    """
    reader = Coco(root, image_set, year, crowd, max_pixels)
    if (
        like is None
        or like == image_set
        or ({like, image_set} == {"train", "val"} and reader.classes == COCO_CLASSES)
    ):
        return reader
    other = annotations_path(Path(root).expanduser(), f"{like}{year}")
    return Matched(reader, class_names_of(other, crowd), f"{image_set}{year}", f"{like}{year}")


def class_names_of(annotations: Path, crowd: Crowd) -> tuple[str, ...]:
    """Reads the classes of an annotation file, from the masks drawn from it if there are any."""
    split = annotations.stem.removeprefix("instances_")
    contents = read_contents(folder_of(annotations.parents[1], split, crowd), annotations)
    return contents.classes if contents else Drawing(annotations, crowd).classes


class Coco:
    """Pictures of one image set that contain objects, and their semantic label maps.

    Categories become classes 1, 2, ... in the order of their ids (1 to 80 for COCO). Where instances overlap, the
    one that comes later in the file takes precedence, as in the published masks. Masks drawn by `fss.data.prepare`
    are used if they exist.

    Args:
        root: Folder with `annotations/instances_{image_set}{year}.json` and the pictures in
            `{image_set}{year}/` or `images/{image_set}{year}/`.
        image_set: "train", "val", or another name used in the file names.
        year: Release year: 2014 (the published protocol) or 2017.
        crowd: "include" crowd regions in their class, as published, or "ignore" them.
        max_pixels: Pictures with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: If root, annotations, picture folder or pictures are missing; the message names them.
        ValueError: If the annotations cannot be read.
    """

    def __init__(
        self, root: str, image_set: str, year: int = 2014, crowd: Crowd = "include", max_pixels: int = MAX_PIXELS
    ) -> None:
        if crowd not in ("include", "ignore"):
            raise ValueError(f"dataset.crowd={crowd!r}: must be 'include' or 'ignore'")
        base, split = Path(root).expanduser(), f"{image_set}{year}"
        if not base.is_dir():
            raise FileNotFoundError(f"no folder {base}: set dataset.root to the folder that contains COCO")
        annotations = annotations_path(base, split)
        if not annotations.is_file():
            raise FileNotFoundError(
                f"no {annotations}: unpack COCO's annotation archive in {base}, or set dataset.year and "
                "dataset.train_set / dataset.eval_set to match your files"
            )
        folders = picture_folders(base, split)
        folder = next((f for f in folders if f.is_dir() and any(f.iterdir())), None)
        if folder is None:
            raise FileNotFoundError(f"no pictures of {split}: neither {folders[0]} nor {folders[1]} contains any")
        self._annotations, self._folder, self._max_pixels = annotations, folder, max_pixels
        self.cache = base / index_cache.FOLDER / f"coco20i-{split}-{crowd}.npz"
        self._masks = folder_of(base, split, crowd)
        self._drawing: Drawing | None = None
        if contents := read_contents(self._masks, annotations):  # saves reading the annotations
            self.classes, self._pictures = contents.classes, contents.pictures
            self._check(self._masks, [mask_name(picture) for picture in self._pictures])
        else:
            self._drawing = Drawing(annotations, crowd, max_pixels)
            self.classes, self._pictures = self._drawing.classes, self._drawing.pictures
        self._check(folder, self._pictures)

    def __len__(self) -> int:
        return len(self._pictures)

    def name(self, index: int) -> str:
        return printable(self._folder / self._pictures[index])

    def image(self, index: int) -> np.ndarray:
        return read_image(self._folder / self._pictures[index], self._max_pixels)

    def mask(self, index: int) -> np.ndarray:
        if self._drawing:
            return draw(self._drawing.task(index))
        return read_mask(mask_path(self._masks, self._pictures[index]), self._max_pixels)

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self._folder / self._pictures[index], self._max_pixels)

    def remark(self, index: int, mask: np.ndarray) -> str:
        return self._drawing.remark(index, mask) if self._drawing else ""

    def files(self) -> list[str | Path]:
        # it suffices to check the list of prepared masks: it is written after them and whenever they are redrawn
        drawn_from = [self._annotations] if self._drawing else [self._annotations, contents_path(self._masks)]
        return [*drawn_from, *self.pictures()]

    def pictures(self) -> list[str]:
        return _within(self._folder, self._pictures)

    def _check(self, folder: Path, names: Sequence[str]) -> None:
        if missing := absent(_within(folder, names)):
            what, mend = "pictures", "unpack the picture archive completely"
            if folder == self._masks:
                what, mend = "masks", f"delete {folder}, or run `python -m fss.data.prepare coco20i`"
            raise FileNotFoundError(
                f"{len(missing)} of the {len(names)} {what} of {self._annotations} are not in {folder}, "
                f"the first is {printable(os.path.relpath(missing[0], folder))}: {mend}"
            )


def _within(folder: Path, names: Sequence[str]) -> list[str]:
    # as strings: creating a hundred thousand Path objects would add a second to every start
    before = os.path.join(folder, "")
    return [before + name for name in names]


def annotations_path(root: Path, split: str) -> Path:
    """Path of a split's instance annotations."""
    return root / "annotations" / f"instances_{split}.json"


def picture_folders(root: Path, split: str) -> list[Path]:
    """Folders in which a split's pictures may be."""
    return [root / split, root / "images" / split]


class MaskTask(NamedTuple):
    """Everything needed to draw one label map.

    Attributes:
        source: The annotation file, for messages.
        picture: The picture.
        objects: Its objects, in the order of the file.
        labels: The label of each object.
    """

    source: Path
    picture: AnnotatedPicture
    objects: list[AnnotatedObject]
    labels: list[int]


class Drawing:
    """The pictures of an annotation file that contain objects, and the data for drawing their label maps.

    Args:
        annotations: Path of the instance annotations.
        crowd: See `Coco`.
        max_pixels: See `Coco`.

    Raises:
        ValueError: If the annotations cannot be read.
    """

    def __init__(self, annotations: Path, crowd: Crowd, max_pixels: int = MAX_PIXELS) -> None:
        self._source, self._crowd = annotations, crowd
        pictures, self._objects, categories = read_annotations(annotations, max_pixels)
        self._pictures = list(pictures.values())
        self._class_of = {category: c for c, category in enumerate(categories, start=1)}
        self.classes = tuple(categories.values())
        self.pictures = tuple(picture.file_name for picture in self._pictures)

    def task(self, index: int) -> MaskTask:
        picture = self._pictures[index]
        objects = self._objects[picture.id]
        return MaskTask(self._source, picture, objects, [self._label(thing) for thing in objects])

    def remark(self, index: int, mask: np.ndarray) -> str:
        """Which objects leave no pixel in the label map; empty where there are none."""
        _, picture, objects, labels = self.task(index)
        shown = set(np.unique(mask).tolist())
        lost = [thing.id for thing, label in zip(objects, labels, strict=True) if label not in shown]
        return f"{printable(picture.file_name)}: annotation {some(lost, 3)}" if lost else ""

    def _label(self, thing: AnnotatedObject) -> int:
        return IGNORE if thing.crowd and self._crowd == "ignore" else self._class_of[thing.category]


def draw(task: MaskTask) -> np.ndarray:
    """Draws a label map (h, w) uint8.

    Raises:
        ValueError: If an annotation is damaged; the message names it.
    """
    _, name, height, width = task.picture
    mask = np.zeros((height, width), np.uint8)
    for thing, label in zip(task.objects, task.labels, strict=True):
        try:
            mask[region(thing.segmentation, height, width)] = label
        except ValueError as error:
            raise ValueError(
                f"{printable(task.source)}: annotation {thing.id} of {printable(name)} is damaged, {error}: fix "
                "or remove it"
            ) from error
    return mask
