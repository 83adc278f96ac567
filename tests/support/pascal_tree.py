"""PASCAL-5i as tiny trees with the real names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

H, W = 20, 30
TRAIN = ["2007_000032", "2008_000008", "2011_003271"]
VAL = ["2007_000033", "2009_000001"]


def mask_of(stem: str) -> np.ndarray:
    """Two classes and a border, others in each picture."""
    number = int(stem[-2:])
    mask = np.zeros((H, W), np.uint8)
    mask[2:8, 3:9], mask[10:18, 12:28], mask[9, :] = number % 20 + 1, (number + 7) % 20 + 1, 255
    return mask


def write(voc: Path, palette: Sequence[str] = ()) -> Path:
    """A prepared folder VOC2012; each picture's red channel tells which one it is."""
    for folder in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    for i, stem in enumerate(TRAIN + VAL):
        picture = Image.fromarray(np.full((H, W, 3), (40 * i, 10, 200), np.uint8))
        picture.save(voc / "JPEGImages" / f"{stem}.jpg")
        mask = Image.fromarray(mask_of(stem))
        if stem in palette:
            mask.putpalette(np.random.default_rng(0).integers(256, size=768).astype(np.uint8).tobytes())
        mask.save(voc / "SegmentationClassAug" / f"{stem}.png")
    for name, stems in (("train-5i", TRAIN), ("val", VAL), ("train", TRAIN[:1])):
        (voc / f"ImageSets/Segmentation/{name}.txt").write_text("\n".join(stems) + "\n")
    return voc
