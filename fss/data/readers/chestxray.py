"""Lungs in chest X-rays of Shenzhen and Montgomery County (Jaeger et al., Candemir et al., 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fss.data import index_cache
from fss.data.readers.pictures import MAX_PIXELS
from fss.data.readers.regions import Item, Official, Regions, below, with_suffix
from fss.files.text import printable

PICTURES, MASKS = "CXR_png", "masks"
SETS = {"shenzhen": "CHNCXR", "montgomery": "MCUCXR"}  # and how the names of their pictures begin

MASKED = {"shenzhen": 566, "montgomery": 138}  # pictures that have a mask, of 662 and of 138
_SOURCE = (
    "as published notebooks list Kaggle's archive: 800 pictures and 704 masks, of which 566 are Shenzhen's "
    "(*_mask.png) and 138 Montgomery's"
)


def open_chestxray(root: str, sets: Sequence[str] = ("shenzhen",), max_pixels: int = MAX_PIXELS) -> Regions:
    """Opens X-rays `CXR_png/STEM.png` that have a mask of both lungs, `masks/STEM_mask.png` or `masks/STEM.png`.

    PATNet's program (Lei et al., ECCV 2022) reads only the masks of Shenzhen.

    Args:
        root: Folder that contains both, directly or in `LungSegmentation/` or `Lung Segmentation/`.
        sets: Which hospitals: "shenzhen", "montgomery" or both.
        max_pixels: Pictures with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: If there is no such folder, or no mask of one of the sets.
        ValueError: If there is no such set.
    """
    if not sets or set(sets) - set(SETS):
        raise ValueError(f"dataset.sets={list(sets)}: must be one or several of {', '.join(SETS)}")
    base = below(root, "LungSegmentation", "the chest X-rays")
    base = base / "Lung Segmentation" if (base / "Lung Segmentation").is_dir() else base
    masks = with_suffix(base / MASKS, ".png")
    pictures = {path.stem: path for path in with_suffix(base / PICTURES, ".png")}
    items = []
    for name in dict.fromkeys(sets):
        found = [_item(pictures, base, mask) for mask in masks if mask.name.upper().startswith(SETS[name])]
        if not found:
            raise FileNotFoundError(
                f"no {SETS[name]}*.png in {base / MASKS}: set dataset.root to the folder that contains {PICTURES} "
                f"and {MASKS}, or leave {name} out of dataset.sets"
            )
        items += found
    cache = base / index_cache.FOLDER / f"chestxray-{'-'.join(sets)}.npz"
    return Regions(("lung",), items, cache, max_pixels, Official(sum(MASKED[name] for name in set(sets)), _SOURCE))


def _item(pictures: dict[str, Path], base: Path, mask: Path) -> Item:
    stem = mask.stem.removesuffix("_mask")
    return Item(1, pictures.get(stem, base / PICTURES / f"{printable(stem)}.png"), mask)
