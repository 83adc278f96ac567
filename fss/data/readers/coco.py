"""COCO pictures with instance annotations, in the layout of the official archives."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pycocotools.coco import COCO

from fss.data import index_cache
from fss.data.readers.coco_masks import contents_path, folder_of, mask_name, mask_path, read_contents
from fss.data.readers.pictures import absent, image_size, read_image, read_mask
from fss.labels import IGNORE, MAX_CLASSES

Crowd = Literal["include", "ignore"]


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

    Raises:
        FileNotFoundError: If root, annotations, picture folder or pictures are missing; the message names them.
        ValueError: If the annotations cannot be read.
    """

    def __init__(self, root: str, image_set: str, year: int = 2014, crowd: Crowd = "include") -> None:
        if crowd not in ("include", "ignore"):
            raise ValueError(f"dataset.crowd={crowd!r}: must be 'include' or 'ignore'")
        base, split = Path(root), f"{image_set}{year}"
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
        self._annotations, self._folder = annotations, folder
        self.cache = base / index_cache.FOLDER / f"coco20i-{split}-{crowd}.npz"
        self._masks = folder_of(base, split, crowd)
        self._drawing: Drawing | None = None
        if contents := read_contents(self._masks, annotations):  # saves reading the annotations
            self.classes, self._pictures = contents.classes, contents.pictures
            self._check(self._masks, [mask_name(picture) for picture in self._pictures])
        else:
            self._drawing = Drawing(annotations, crowd)
            self.classes, self._pictures = self._drawing.classes, self._drawing.pictures
        self._check(folder, self._pictures)

    def __len__(self) -> int:
        return len(self._pictures)

    def name(self, index: int) -> str:
        return str(self._folder / self._pictures[index])

    def image(self, index: int) -> np.ndarray:
        return read_image(self._folder / self._pictures[index])

    def mask(self, index: int) -> np.ndarray:
        if self._drawing:
            return draw(self._drawing.task(index))
        return read_mask(mask_path(self._masks, self._pictures[index]))

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self._folder / self._pictures[index])

    def files(self) -> list[str | Path]:
        # it suffices to check the list of prepared masks: it is written after them and whenever they are redrawn
        drawn_from = [self._annotations] if self._drawing else [self._annotations, contents_path(self._masks)]
        return [*drawn_from, *_within(self._folder, self._pictures)]

    def _check(self, folder: Path, names: Sequence[str]) -> None:
        if missing := absent(_within(folder, names)):
            what, mend = "pictures", "unpack the picture archive completely"
            if folder == self._masks:
                what, mend = "masks", f"delete {folder}, or run `python -m fss.data.prepare coco20i`"
            raise FileNotFoundError(
                f"{len(missing)} of the {len(names)} {what} of {self._annotations} are not in {folder}, "
                f"the first is {os.path.relpath(missing[0], folder)}: {mend}"
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
        picture: COCO's entry for the picture.
        annotations: COCO's entries for its objects, in the order of the file.
        labels: The label of each object.
    """

    source: Path
    picture: dict[str, Any]
    annotations: list[dict[str, Any]]
    labels: list[int]


class Drawing:
    """The pictures of an annotation file that contain objects, and the data for drawing their label maps.

    Args:
        annotations: Path of the instance annotations.
        crowd: See `Coco`.

    Raises:
        ValueError: If the annotations cannot be read.
    """

    def __init__(self, annotations: Path, crowd: Crowd) -> None:
        self._source, self._crowd = annotations, crowd
        self._coco = _read_annotations(annotations)
        self._ids = sorted(i for i in self._coco.imgs if self._coco.imgToAnns[i])
        if not self._ids:
            raise ValueError(f"{annotations} lists no picture with an annotation")
        categories = sorted(self._coco.cats)
        if not 0 < len(categories) <= MAX_CLASSES:
            raise ValueError(f"{annotations} has {len(categories)} categories, must be 1 to {MAX_CLASSES}")
        self._class_of = {category: c for c, category in enumerate(categories, start=1)}
        self.classes = tuple(self._coco.cats[category]["name"] for category in categories)
        self.pictures = tuple(self._coco.imgs[i]["file_name"] for i in self._ids)

    def task(self, index: int) -> MaskTask:
        picture = self._coco.imgs[self._ids[index]]
        annotations = self._coco.imgToAnns[picture["id"]]
        return MaskTask(self._source, picture, annotations, [self._label(a) for a in annotations])

    def _label(self, annotation: dict[str, Any]) -> int:
        ignored = annotation.get("iscrowd") and self._crowd == "ignore"
        return IGNORE if ignored else self._class_of[annotation["category_id"]]


def draw(task: MaskTask) -> np.ndarray:
    """Draws a label map (h, w) uint8.

    Raises:
        ValueError: If an annotation is damaged; the message names it.
    """
    coco = COCO()
    coco.imgs = {task.picture["id"]: task.picture}  # annToMask needs nothing else
    mask = np.zeros((task.picture["height"], task.picture["width"]), np.uint8)
    for annotation, label in zip(task.annotations, task.labels, strict=True):
        try:
            mask[coco.annToMask(annotation).astype(bool)] = label
        except Exception as error:  # pycocotools raises many types, including bare Exception
            raise ValueError(
                f"{task.source}: annotation {annotation.get('id')} of {task.picture['file_name']} is damaged "
                f"({error!r}): fix or remove it"
            ) from error
    return mask


def _read_annotations(path: Path) -> COCO:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its timings
            coco = COCO(str(path))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(f"{path} is not a COCO annotation file: {error!r}; unpack it again") from error
    absent = {"images", "annotations", "categories"} - set(coco.dataset)
    if absent:
        raise ValueError(
            f"{path} has no {', '.join(sorted(absent))}: use the instance annotations (instances_*.json)"
        )
    for kind, part, entries, needed in (
        ("picture", "images", coco.imgs, ("file_name", "height", "width")),
        ("category", "categories", coco.cats, ("name",)),
        ("annotation", "annotations", coco.anns, ("category_id", "segmentation")),
    ):
        if len(entries) < len(coco.dataset[part]):  # of two entries with one id, the later would replace the other
            raise ValueError(f"{path}: two of its {part} have the same id: give each a unique one")
        for number, entry in entries.items():
            if lacking := [key for key in needed if key not in entry]:
                raise ValueError(f"{path}: {kind} {number} has no {', '.join(lacking)}")
            if kind == "annotation" and entry["category_id"] not in coco.cats:
                raise ValueError(
                    f"{path}: annotation {number} has category {entry['category_id']}, which is not listed"
                )
    return coco
