"""ISIC 2018, task 1 (Codella et al., arXiv:1902.03368): skin lesions of three kinds, as in PATNet (ECCV 2022)."""

from __future__ import annotations

import csv
from pathlib import Path

from fss.data import index_cache
from fss.data.readers.class_names import class_folders
from fss.data.readers.pictures import MAX_PIXELS
from fss.data.readers.regions import Item, Official, Regions, below, beside, with_suffix
from fss.files.text import is_name, printable, read_text, some

PICTURES = "ISIC2018_Task1-2_Training_Input"
MASKS = "ISIC2018_Task1_Training_GroundTruth"
CLASS_LIST = "class_id.csv"
OFFICIAL = Official(2594, "ISIC 2018, task 1, training (Codella et al., arXiv:1902.03368)")


def open_isic(root: str, max_pixels: int = MAX_PIXELS) -> Regions:
    """Opens the training pictures of ISIC 2018 with their masks and kinds of lesion.

    Pictures are in `ISIC2018_Task1-2_Training_Input/`, either in a folder for each class, or all together with
    `class_id.csv` beside that folder, which has the columns ID and Class (PATNet's program comes with it).
    Masks are `ISIC2018_Task1_Training_GroundTruth/ID_segmentation.png`.

    Args:
        root: Folder that contains both, directly or in `ISIC/`.
        max_pixels: Pictures with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: If there is no such folder, no picture, or no class of the pictures.
        ValueError: If the list of classes cannot be read or lacks pictures.
    """
    base = below(root, "ISIC", "ISIC 2018")
    folder = base / PICTURES
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no {folder}: set dataset.root to the folder that contains it and {MASKS}, or unpack the official "
            f"archives: python -m fss.data.prepare isic --root {root}"
        )
    pictures = with_suffix(folder, ".jpg")
    lists = [base / CLASS_LIST] if pictures else []
    if pictures:
        named = _listed(base / CLASS_LIST, pictures)
    else:
        named = [
            (name, path) for name, inner in class_folders(folder).items() for path in with_suffix(inner, ".jpg")
        ]
    if not named:
        raise FileNotFoundError(f"no pictures in {folder}: put ISIC_*.jpg there, or into a folder for each class")
    classes = sorted({name for name, _ in named})
    masks = beside(base / MASKS)
    items = [
        Item(
            classes.index(name) + 1,
            path,
            masks.get(f"{path.stem}_segmentation", base / MASKS / f"{path.stem}_segmentation.png"),
        )
        for name, path in named
    ]
    cache = base / index_cache.FOLDER / "isic.npz"
    return Regions(classes, sorted(items), cache, max_pixels, OFFICIAL, lists)


def _listed(path: Path, pictures: list[Path]) -> list[tuple[str, Path]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}: put the list of classes there (data/isic/class_id.csv of github.com/slei109/PATNet), or "
            "the pictures into a folder for each class"
        )
    rows = list(csv.reader(read_text(path).splitlines()))
    if not rows or [cell.strip() for cell in rows[0]] != ["ID", "Class"] or any(len(row) != 2 for row in rows[1:]):
        raise ValueError(f"{printable(path)} is no list of classes: it must have the columns ID,Class")
    kinds = {stem.strip(): kind.strip() for stem, kind in rows[1:]}
    if unknown := [picture.name for picture in pictures if not is_name(kinds.get(picture.stem, ""))]:
        raise ValueError(f"{printable(path)} has no class for {some(map(printable, unknown), 5)}: add it")
    return [(kinds[picture.stem], picture) for picture in pictures]
