"""Run-length masks and polygons: all that does not fit the picture is refused before pycocotools sees it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycocotools

from fss.data.index import WORTHWHILE, build_index
from fss.data.readers.folder import open_folder
from fss.data.readers.segmentations import region


def test_runs_are_read_as_pycocotools_reads_them() -> None:
    chance = np.random.default_rng(0)
    for _ in range(100):
        height, width = (int(n) for n in chance.integers(1, 60, 2))
        mask = (chance.random((height, width)) < chance.random() ** 2).astype(np.uint8)
        encoded = pycocotools.encode(np.asfortranarray(mask))
        size = [height, width]
        np.testing.assert_array_equal(region({"size": size, "counts": encoded["counts"].decode()}, *size), mask)
        flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
        counts = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat))])).tolist()
        np.testing.assert_array_equal(region({"size": size, "counts": counts}, *size), mask)


def test_polygons_are_drawn_as_pycocotools_draws_them() -> None:
    polygon = [[1, 1, 20.5, 2, 15, 18.25], [25, 3, 29, 3, 29, 9, 25, 9]]
    drawn = pycocotools.decode(pycocotools.merge(pycocotools.frPyObjects(polygon, 20, 30)))
    np.testing.assert_array_equal(region(polygon, 20, 30), drawn)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        # 4735 to 4754 pixels were found here, of memory that nobody had written
        ({"size": [60, 80], "counts": [10, 20]}, "its runs have 30 pixels, the picture has 4800"),
        ({"size": [60, 80], "counts": []}, "its runs have 0 pixels"),
        ({"size": [60, 80], "counts": [4800, -1, 1]}, "no counts of whole numbers"),
        ({"size": [60, 80], "counts": [4799.0, 1]}, "no counts of whole numbers"),
        ({"size": [60, 80], "counts": ["4800"]}, "no counts of whole numbers"),
        ({"size": [60, 80], "counts": None}, "no counts of whole numbers"),
        ({"size": [60, 80], "counts": [10**30]}, "its runs have 1000000000000000000000000000000 pixels"),
        ({"size": [60, 80], "counts": "abc"}, "run"),
        ({"size": [60, 80], "counts": "é"}, "compressed run-length mask is damaged"),
        ({"size": [60, 80], "counts": "P" * 100}, "compressed run-length mask is damaged"),
        ({"size": [80, 60], "counts": [4800]}, "is of 60 x 80 pixels, the picture has 80 x 60"),
        ({"size": [60], "counts": [4800]}, "no size"),
        ({"size": ["60", 80], "counts": [4800]}, "no size"),
        ({"counts": [4800]}, "no size"),
        ([], "it has no outline"),
        ([[]], "a polygon has 0 numbers"),
        ([[1, 1, 5, 5]], "a polygon has 4 numbers"),  # would be read as a box
        ([[1, 1, 5, 5, 9]], "a polygon has 5 numbers"),
        ([[1, 1, 5, 5, 9, math.nan]], "outside the picture"),
        ([[1, 1, 5, 5, 9, math.inf]], "outside the picture"),
        ([[1, 1, 5, 5, 9, 1e9]], "outside the picture"),
        ([[1, 1, 5, 5, 9, -1e9]], "outside the picture"),
        ([[1, 1, 5, 5, 9, None]], "no list of numbers"),
        ([[1, 1, 5, 5, 9, "9"]], "no list of numbers"),
        ([[1, 1, 5, 5, 9, 10**30]], "no list of numbers"),
        ([[[1, 1], [5, 5], [9, 9]]], "no list of numbers"),
        ([1, 1, 5, 5, 9, 9], "a polygon|no list of numbers"),
        (None, "neither polygons nor"),
        (7, "neither polygons nor"),
    ],
)
def test_what_does_not_fit_is_refused(segmentation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        region(segmentation, 60, 80)


def test_every_cut_of_a_compressed_mask_is_refused() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[10:40, 20:70] = 1
    text = pycocotools.encode(np.asfortranarray(mask))["counts"].decode()
    for end in range(len(text)):
        with pytest.raises(ValueError, match="run"):
            region({"size": [60, 80], "counts": text[:end]}, 60, 80)


def write(root: Path, pictures: int, segmentation: Any) -> Path:
    """Own pictures of which the second has an odd object."""
    (root / "images").mkdir(parents=True)
    for i in range(pictures):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(root / f"images/{i}.png")
    square = [[2, 2, 12, 2, 12, 12, 2, 12]]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 20, "width": 30} for i in range(pictures)],
        "categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}],
        "annotations": [
            {"id": 100 + i, "image_id": i, "category_id": 1, "segmentation": segmentation if i == 1 else square}
            for i in range(pictures)
        ],
    }
    (root / "annotations.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("pictures", [3, WORTHWHILE])  # in this process, and by several
@pytest.mark.parametrize(
    "odd", [[[1, 1, 5, 5, 9, math.nan]], [[1, 1, 5, 5, 9, 1e9]], {"size": [20, 30], "counts": [1]}]
)
def test_annotation_is_named(tmp_path: Path, pictures: int, odd: Any) -> None:
    reader = open_folder(str(write(tmp_path, pictures, odd)))
    with pytest.raises(
        ValueError, match=r"annotations\.json: annotation 101 of 1\.png is damaged, .*fix or remove"
    ):
        build_index(reader)
