"""Supports from a folder, in either of two layouts."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from fss.data.episodes import read, select
from fss.data.readers.annotated_folder import ANNOTATIONS
from fss.data.readers.folder import open_folder
from fss.data.readers.pictures import MAX_PIXELS, SUFFIXES
from fss.files.text import printable, some
from fss.labels import ignored
from fss.predictor.inputs import Picture


def read_supports(folder: Path, max_pixels: int = MAX_PIXELS) -> dict[str, list[tuple[Picture, Picture]]]:
    """Finds the supports of every class.

    Args:
        folder: Laid out as for `dataset=folder` (`images/` with `masks/` or `annotations.json`), or with a folder
            for each class: `CLASS/STEM.jpg` (or another kind of picture) and its mask `CLASS/STEM.png`.
        max_pixels: Larger pictures are refused before they are decoded.

    Returns:
        For each class, pictures with masks: what `FewShotPredictor.fit` takes.

    Raises:
        FileNotFoundError: There is no such folder, or a picture or mask is missing.
        ValueError: Files cannot be used.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder of supports {printable(folder)}: give one that has a folder for each class, with "
            "CLASS/STEM.jpg and CLASS/STEM.png"
        )
    if (folder / "images").is_dir() and ((folder / "masks").is_dir() or (folder / ANNOTATIONS).is_file()):
        return _labelled(folder, max_pixels)
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise FileNotFoundError(
            f"no supports in {printable(folder)}: make a folder for each class with pictures and masks, "
            "CLASS/STEM.jpg and CLASS/STEM.png, or images/ and masks/"
        )
    return {path.name: _pairs(path) for path in classes}


def _labelled(folder: Path, max_pixels: int) -> dict[str, list[tuple[Picture, Picture]]]:
    reader = open_folder(str(folder), max_pixels=max_pixels)
    found: dict[str, list[tuple[Picture, Picture]]] = defaultdict(list)
    for number in range(len(reader)):
        image, labels = read(reader, number)
        for class_id in np.unique(labels[(labels > 0) & ~ignored(labels)]).tolist():
            if class_id > len(reader.classes):
                raise ValueError(f"{reader.name(number)}: its mask holds class id {class_id}, which has no name")
            found[reader.classes[class_id - 1]].append((image, select(labels, class_id)))
    if not found:
        raise ValueError(f"the masks in {printable(folder)} show nothing")
    return dict(found)


def _pairs(folder: Path) -> list[tuple[Picture, Picture]]:
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        if path.suffix.lower() in SUFFIXES:
            by_stem[path.stem].append(path)
    pairs: list[tuple[Picture, Picture]] = []
    alone: list[Path] = []
    for paths in by_stem.values():
        masks = [path for path in paths if path.suffix.lower() == ".png"]
        pictures = [path for path in paths if path not in masks]
        if len(masks) == len(pictures) == 1:
            pairs.append((pictures[0], masks[0]))
        else:
            alone += paths
    if alone or not pairs:
        what = some(map(printable, alone)) if alone else f"{printable(folder)} holds none"
        raise FileNotFoundError(
            "every support is a picture STEM.jpg (.webp, .tif, .bmp) with its mask STEM.png beside it; not so: "
            f"{what}"
        )
    return pairs
