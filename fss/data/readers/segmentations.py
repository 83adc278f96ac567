"""COCO's segmentations to pixels: polygons and run-length masks, both checked before any of it is drawn.

pycocotools trusts its input: numbers out of bounds end the process, and runs that do not fill the picture leave
memory as it was.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as pycocotools


def region(segmentation: Any, height: int, width: int) -> np.ndarray:
    """(h, w) bool: the pixels of an object.

    Args:
        segmentation: Polygons, `[[x, y, x, y, ...], ...]` in pixels, or run-length encoding,
            `{"size": [h, w], "counts": ...}`: lengths of runs down the columns, background first, as a list or in
            COCO's compression.
        height: h of the picture.
        width: w of the picture.

    Raises:
        ValueError: It is neither, or does not fit the picture.
    """
    if isinstance(segmentation, dict):
        return _runs(segmentation, height, width)
    if isinstance(segmentation, list):
        return _polygons(segmentation, height, width)
    raise ValueError("its segmentation is neither polygons nor run-length encoding")


def _polygons(polygons: list[Any], height: int, width: int) -> np.ndarray:
    if not polygons:
        raise ValueError("it has no outline (segmentation is empty)")
    side = np.array([width, height])
    for polygon in polygons:
        try:
            # text becomes an array of text, null and numbers beyond 64 bits one of objects
            points = np.array(polygon)
        except ValueError:
            points = np.array(None)
        if points.dtype.kind not in "iuf" or points.ndim != 1:
            raise ValueError("a polygon is no list of numbers")
        if len(points) < 6 or len(points) % 2:  # pycocotools would read four numbers as a box
            raise ValueError(f"a polygon has {len(points)} numbers, must be x and y of 3 points or more")
        outside = (points.reshape(-1, 2) < -side) | (points.reshape(-1, 2) > 2 * side)
        if not np.isfinite(points).all() or outside.any():
            raise ValueError(f"a polygon lies outside the picture of {width} x {height} pixels")
    runs = pycocotools.merge(pycocotools.frPyObjects(polygons, height, width))
    return pycocotools.decode(runs).astype(bool)


def _runs(encoded: dict[str, Any], height: int, width: int) -> np.ndarray:
    size, counts = encoded.get("size"), encoded.get("counts")
    if not isinstance(size, list) or [type(side) for side in size] != [int, int]:
        raise ValueError("its run-length mask has no size [height, width]")
    if size != [height, width]:
        raise ValueError(
            f"its run-length mask is of {size[1]} x {size[0]} pixels, the picture has {width} x {height}"
        )
    if isinstance(counts, str):
        counts = _decompressed(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("its run-length mask has no counts of whole numbers")
    if (total := sum(counts)) != height * width:
        raise ValueError(f"its runs have {total} pixels, the picture has {height * width}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def _decompressed(text: str) -> list[int]:
    """Lengths of runs: five bits a character, low ones first; from the fourth on less the length two before."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its compressed run-length mask is damaged")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:  # the last character of this number; its fifth bit is the sign
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its compressed run-length mask is cut short")
    return counts
