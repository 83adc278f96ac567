"""A folder of somebody's own pictures, with both kinds of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fss.data.readers.reader import Reader

H, W = 24, 32
NAMES = ("ant", "bee", "cat", "dog", "elk")


def mask_of(i: int) -> np.ndarray:
    """Class i % 5 + 1, and the next one over it."""
    mask = np.zeros((H, W), np.uint8)
    mask[4:14, 4:16] = i % 5 + 1
    mask[10:20, 12:28] = (i + 1) % 5 + 1
    return mask


def stem(i: int) -> str:
    return f"picture {i:02d}"


def write(root: Path, n: int = 15, per_class: bool = False, classes: bool = True, palette: bool = False) -> Path:
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for i in range(n):
        Image.fromarray(np.full((H, W, 3), (10 * i, 50, 90), np.uint8)).save(root / f"images/{stem(i)}.png")
        mask = mask_of(i)
        if per_class:
            for c in set(mask[mask > 0].tolist()):
                (root / "masks" / NAMES[c - 1]).mkdir(exist_ok=True)
                region = Image.fromarray((mask == c).astype(np.uint8) * 255)
                region.save(root / "masks" / NAMES[c - 1] / f"{stem(i)}.png")
        else:
            image = Image.fromarray(mask)
            if palette:
                image.putpalette(np.random.default_rng(0).integers(256, size=768).astype(np.uint8).tobytes())
            image.save(root / f"masks/{stem(i)}.png")
    if classes:
        (root / "classes.txt").write_text("\n".join(NAMES) + "\n\n")
    return root


def check(reader: Reader) -> None:
    assert len(reader) == 15
    for i in range(15):
        assert Path(reader.name(i)).name == f"{stem(i)}.png"
        assert (reader.image(i) == (10 * i, 50, 90)).all()
        assert reader.mask(i).dtype == np.uint8
        np.testing.assert_array_equal(reader.mask(i), mask_of(i))
