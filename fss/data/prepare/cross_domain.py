"""Prepares ISIC 2018 and DeepGlobe for cross-domain evaluation, as PATNet lays them out (ECCV 2022)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fss.data.parallel import for_each
from fss.data.prepare.archives import Archive, find_archive, unpack
from fss.data.prepare.masks import write_mask
from fss.data.readers.deepglobe import CLASSES
from fss.data.readers.isic import MASKS, OFFICIAL, PICTURES
from fss.data.readers.pictures import read_colours, read_image
from fss.data.readers.regions import with_suffix
from fss.files.whole import whole

_ISIC = "https://isic-challenge-data.s3.amazonaws.com/2018"
# SHA-256 as torch-em records it.
ISIC = (
    Archive(f"{_ISIC}/{PICTURES}.zip", sha256="80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f"),
    Archive(f"{_ISIC}/{MASKS}.zip", sha256="99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c"),
)
# Kaggle's archive of the data set; its checksum is not known, so it is not downloaded here.
DEEPGLOBE = Archive(
    "https://www.kaggle.com/datasets/balraj98/deepglobe-land-cover-classification-dataset/archive.zip"
)
CUTS = 6  # tiles on each side of a picture
SMALLEST = 0.048  # every colour of a tile must cover more than this fraction of it
_CODES = (6, 3, 5, 2, 1, 7)  # of the classes: red, green and blue as bits; 0, black, is unknown


def prepare_isic(root: Path, archives: Path, download: bool = False) -> list[str]:
    """Unpacks pictures and masks below root; returns lines that say what is there.

    Raises:
        FileNotFoundError: If an archive is missing.
        ValueError: If one cannot be downloaded, or is damaged or wrong.
    """
    for archive, folder, suffix in zip(ISIC, (PICTURES, MASKS), ("jpg", "png"), strict=True):
        found = find_archive(archive, (archives, root), download)
        unpack(found, rf"(?:.*/)?{folder}/(ISIC_[^/]+\.{suffix})", root / folder)
    counts = [len(with_suffix(root / folder, ".jpg", ".png")) for folder in (PICTURES, MASKS)]
    lines = [f"isic: {counts[0]} pictures, {counts[1]} masks"]
    if counts != [OFFICIAL.pictures] * 2:
        lines.append(f"The official archives have {OFFICIAL.pictures} of each.")
    return lines


def prepare_deepglobe(root: Path, archives: Path, workers: int, download: bool = False) -> list[str]:
    """Cuts every annotated picture into 6 x 6 tiles and writes those with several classes into their folders.

    As by PATNet, a tile is kept if it has several colours, each on more than 4.8 % of it, black included.
    Tiles are compressed again, so their pixels are not exactly the published ones.

    Raises:
        FileNotFoundError: If the archive is missing.
        ValueError: If it is damaged or wrong.
    """
    original = root / "original"
    unpack(
        find_archive(DEEPGLOBE, (archives, root), download),
        r"(?:.*/)?train/(\d+_(?:sat\.jpg|mask\.png))",
        original,
    )
    masks = [path for path in with_suffix(original, ".png") if path.stem.endswith("_mask")]
    for_each(_cut, masks, workers, "Cutting tiles")
    counts = [len(with_suffix(root / f"{c}/test/origin", ".jpg")) for c in range(1, len(CLASSES) + 1)]
    listed = ", ".join(f"{name} {count}" for name, count in zip(CLASSES, counts, strict=True))
    return [f"deepglobe: tiles of {len(masks)} pictures (the official archive has 803): {listed}"]


def _cut(path: Path) -> None:
    picture = path.with_name(path.name.replace("_mask.png", "_sat.jpg"))
    image, codes = read_image(picture), read_colours(path) @ np.array([4, 2, 1], np.uint8)
    height, width = codes.shape
    if image.shape[:2] != codes.shape:
        raise ValueError(f"{picture} and {path.name} differ in size: unpack the archive again")
    for i in range(CUTS):
        for j in range(CUTS):
            tile = np.s_[
                i * height // CUTS : (i + 1) * height // CUTS, j * width // CUTS : (j + 1) * width // CUTS
            ]
            shown = np.bincount(codes[tile].ravel(), minlength=8) / codes[tile].size
            if np.count_nonzero(shown) < 2 or shown[shown > 0].min() <= SMALLEST:
                continue
            for class_id, code in enumerate(_CODES, start=1):
                if shown[code]:
                    stem, folder = (
                        f"{picture.stem.removesuffix('_sat')}_{i}{j}",
                        path.parents[1] / f"{class_id}/test",
                    )
                    _write_picture(folder / f"origin/{stem}.jpg", image[tile])
                    write_mask(_parent(folder / f"groundtruth/{stem}.png"), (codes[tile] == code) * np.uint8(255))


def _write_picture(path: Path, image: np.ndarray) -> None:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))  # quality 95, as PATNet's program
    with whole(_parent(path)) as unfinished:
        unfinished.write_bytes(encoded.tobytes())


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
