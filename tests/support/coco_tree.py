"""COCO as tiny trees with the real names and all the forms that annotations come in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle

H, W = 20, 30
CATEGORIES = [  # ids with gaps, not in their order
    {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
    {"id": 1, "name": "person", "supercategory": "person"},
    {"id": 3, "name": "car", "supercategory": "vehicle"},
]


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    region = np.zeros((H, W), np.uint8)
    region[top:bottom, left:right] = 1
    return region


def polygon(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(region: np.ndarray) -> dict[str, Any]:
    """Uncompressed RLE: lengths of runs down the columns, the first of background."""
    flat = np.concatenate([[0], region.ravel(order="F"), [2]])
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], changes])).tolist()
    return {"counts": counts, "size": [H, W]}


def compressed(region: np.ndarray) -> dict[str, Any]:
    encoded = rle.encode(np.asfortranarray(region))
    return {"counts": encoded["counts"].decode(), "size": [H, W]}


def picture(number: int, file_name: str) -> dict[str, Any]:
    return {"id": number, "file_name": file_name, "height": H, "width": W}


def annotation(image: int, category: int, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": crowd,
        "area": 1.0,
        "bbox": [0, 0, 1, 1],
    }


PICTURES = [
    picture(300, "COCO_train2014_000000000300.jpg"),
    picture(9, "COCO_train2014_000000000009.jpg"),
    picture(42, "COCO_train2014_000000000042.jpg"),  # without an object
    picture(77, "a name with spaces.jpg"),
]
ANNOTATIONS = [
    annotation(300, 3, polygon(2, 3, 12, 15)),
    annotation(9, 90, compressed(rectangle(0, 0, 5, 7))),
    annotation(300, 1, polygon(8, 10, 18, 28)),  # over the car
    annotation(9, 3, runs(rectangle(10, 20, 20, 30)), crowd=1),
    annotation(9, 1, polygon(15, 25, 20, 30)),  # over the crowd
    annotation(77, 90, polygon(0, 0, 4, 4) + polygon(10, 10, 14, 18)),  # one object of two parts
]


def write(
    root: Path,
    split: str = "train2014",
    folder: str = "{}",
    pictures: Sequence[dict[str, Any]] = PICTURES,
    annotations: Sequence[dict[str, Any]] = ANNOTATIONS,
    replaced: Mapping[str, Any] | None = None,
) -> Path:
    """A tree as the archives unpack, each picture of one colour; `replaced` are parts of the file."""
    images = root / folder.format(split)
    images.mkdir(parents=True)
    for i, info in enumerate(pictures):
        bgr = np.full((H, W, 3), (10, 100, 200 - 40 * i), np.uint8)
        (images / info["file_name"]).parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(images / info["file_name"]), bgr)
    (root / "annotations").mkdir()
    numbered = [{**a, "id": 1000 - i} for i, a in enumerate(annotations)]
    content = {"info": {}, "images": list(pictures), "annotations": numbered, "categories": CATEGORIES}
    content = {name: value for name, value in {**content, **(replaced or {})}.items() if value is not None}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root
