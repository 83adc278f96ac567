"""What is read as data: pictures, masks, annotations, lists, and the index kept beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from checks.fuzzing.target import FileTarget, Target
from fss.data.readers.pictures import read_image, read_mask


def _write_mask(folder: Path) -> Sequence[Path]:
    mask = np.zeros((20, 30), np.uint8)
    mask[4:12, 5:20] = 3
    Image.fromarray(mask).save(folder / "mask.png")
    return [folder / "mask.png"]


def _write_jpeg(folder: Path) -> Sequence[Path]:
    values = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(values).save(folder / "picture.jpg")
    return [folder / "picture.jpg"]


TARGETS: list[Target] = [
    FileTarget("mask png", _write_mask, lambda folder: read_mask(folder / "mask.png").tobytes(), exact=True),
    FileTarget("picture jpeg", _write_jpeg, lambda folder: read_image(folder / "picture.jpg").shape),
]
