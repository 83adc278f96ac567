"""DeepGlobe land cover (Demir et al., CVPRW 2018), cut into tiles as by PATNet (Lei et al., ECCV 2022)."""

from __future__ import annotations

from fss.data import index_cache
from fss.data.readers.pictures import MAX_PIXELS
from fss.data.readers.regions import Item, Regions, below, beside, with_suffix

# Folder 1 to 6. PATNet's program compares OpenCV's BGR with its list of colours, so yellow, agriculture, is first.
CLASSES = ("agriculture", "urban", "rangeland", "forest", "water", "barren")


def open_deepglobe(root: str, max_pixels: int = MAX_PIXELS) -> Regions:
    """Opens tiles `CLASS/test/origin/STEM.jpg` with masks `CLASS/test/groundtruth/STEM.png`, CLASS from 1 to 6.

    A tile that shows several classes is in several folders.

    Args:
        root: Folder that contains the classes, directly or in `Deepglobe/`.
        max_pixels: Pictures with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: If there is no such folder, or a class without pictures.
    """
    base = below(root, "Deepglobe", "the tiles of DeepGlobe")
    items = []
    for class_id, name in enumerate(CLASSES, start=1):
        folder = base / str(class_id) / "test"
        if not (pictures := with_suffix(folder / "origin", ".jpg")):
            raise FileNotFoundError(
                f"no pictures of {name} in {folder / 'origin'}: set dataset.root to the folder of PATNet's tiles, "
                f"or make them: python -m fss.data.prepare deepglobe --root {root}"
            )
        masks = beside(folder / "groundtruth")
        items += [
            Item(class_id, path, masks.get(path.stem, folder / f"groundtruth/{path.stem}.png"))
            for path in pictures
        ]
    return Regions(CLASSES, items, base / index_cache.FOLDER / "deepglobe.npz", max_pixels)
