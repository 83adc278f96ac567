"""COCO pictures with instance annotations, read as they come from the official archives."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Literal

import numpy as np
from pycocotools.coco import COCO

from fss.data.pictures import absent, read_image
from fss.data.reader import IGNORE, MAX_CLASSES


class Coco:
    """The pictures of one image set that hold an object, and their semantic label maps.

    Categories become classes 1, 2, ... in the order of their ids (1 to 80 for COCO). Where instances overlap, the
    later one of the file wins, as in the published masks.

    Args:
        root: Folder with `annotations/instances_{image_set}{year}.json` and the pictures in
            `{image_set}{year}/` or `images/{image_set}{year}/`.
        image_set: "train" or "val", or any other name that the files carry.
        year: 2014 (the published protocol) or 2017.
        crowd: Whether crowd regions belong to their class ("include", as published) or are ignored ("ignore").

    Raises:
        FileNotFoundError: Root, annotations, picture folder or pictures are missing; the message names them.
        ValueError: The annotations cannot be read.
    """

    def __init__(
        self, root: str, image_set: str, year: int = 2014, crowd: Literal["include", "ignore"] = "include"
    ) -> None:
        if crowd not in ("include", "ignore"):
            raise ValueError(f"dataset.crowd={crowd!r}: must be 'include' or 'ignore'")
        self._crowd = crowd
        base, split = Path(root), f"{image_set}{year}"
        if not base.is_dir():
            raise FileNotFoundError(f"no folder {base}: set dataset.root to the folder that holds COCO")
        annotations = base / "annotations" / f"instances_{split}.json"
        if not annotations.is_file():
            raise FileNotFoundError(
                f"no {annotations}: unpack COCO's annotation archive in {base}, or set dataset.year and "
                "dataset.train_set / dataset.eval_set to what is there"
            )
        folders = [base / split, base / "images" / split]
        folder = next((f for f in folders if f.is_dir() and any(f.iterdir())), None)
        if folder is None:
            raise FileNotFoundError(f"no pictures of {split}: neither {folders[0]} nor {folders[1]} holds any")
        self._coco = _read_annotations(annotations)
        self._annotations, self._folder = annotations, folder
        self._ids = sorted(i for i in self._coco.imgs if self._coco.imgToAnns[i])
        self._check_pictures()
        categories = sorted(self._coco.cats)
        if not 0 < len(categories) <= MAX_CLASSES:
            raise ValueError(f"{annotations} has {len(categories)} categories, must be 1 to {MAX_CLASSES}")
        self._class_of = {category: c for c, category in enumerate(categories, start=1)}
        self.classes = tuple(self._coco.cats[category]["name"] for category in categories)

    def __len__(self) -> int:
        return len(self._ids)

    def name(self, index: int) -> str:
        return str(self._path(index))

    def image(self, index: int) -> np.ndarray:
        return read_image(self._path(index))

    def mask(self, index: int) -> np.ndarray:
        info = self._coco.imgs[self._ids[index]]
        mask = np.zeros((info["height"], info["width"]), np.uint8)
        for annotation in self._coco.imgToAnns[info["id"]]:
            ignored = annotation.get("iscrowd") and self._crowd == "ignore"
            try:
                region = self._coco.annToMask(annotation).astype(bool)
                mask[region] = IGNORE if ignored else self._class_of[annotation["category_id"]]
            except Exception as error:  # pycocotools raises many kinds, bare Exception among them
                raise ValueError(
                    f"{self._annotations}: annotation {annotation.get('id')} of {info['file_name']} is damaged "
                    f"({error!r}): mend or remove it"
                ) from error
        return mask

    def _path(self, index: int) -> Path:
        return self._folder / self._coco.imgs[self._ids[index]]["file_name"]

    def _check_pictures(self) -> None:
        if not self._ids:
            raise ValueError(f"{self._annotations} lists no picture with an annotation")
        missing = absent(map(self._path, range(len(self))))
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of the {len(self)} pictures of {self._annotations} are not in {self._folder}, "
                f"the first is {missing[0].name}: unpack the picture archive completely"
            )


def _read_annotations(path: Path) -> COCO:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its timings
            coco = COCO(str(path))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(f"{path} is not a COCO annotation file: {error!r}; unpack it anew") from error
    absent = {"images", "annotations", "categories"} - set(coco.dataset)
    if absent:
        raise ValueError(
            f"{path} has no {', '.join(sorted(absent))}: take the instance annotations (instances_*.json)"
        )
    for kind, entries, needed in (
        ("picture", coco.imgs, ("file_name", "height", "width")),
        ("category", coco.cats, ("name",)),
        ("annotation", coco.anns, ("category_id", "segmentation")),
    ):
        for number, entry in entries.items():
            if lacking := [key for key in needed if key not in entry]:
                raise ValueError(f"{path}: {kind} {number} has no {', '.join(lacking)}")
            if kind == "annotation" and entry["category_id"] not in coco.cats:
                raise ValueError(
                    f"{path}: annotation {number} is of category {entry['category_id']}, which is not listed"
                )
    return coco
