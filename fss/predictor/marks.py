"""Supports that are marked with boxes or points in place of masks.

Shapes: C channels, h w feature height and width, S side of the square that the network sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from fss.resize import resize

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A box around the object, in pixels, `right` and `bottom` excluded: all in it counts as the object."""

    left: float
    top: float
    right: float
    bottom: float

    def mask(self, height: int, width: int) -> np.ndarray:
        """(height, width) uint8: 1 in the box.

        Raises:
            ValueError: A side is no finite number, or no pixel of the picture is in it.
        """
        if not all(map(_is_finite, astuple(self))):
            raise ValueError(f"{self}: left, top, right and bottom must be finite numbers of pixels")
        left, top, right, bottom = (max(0, round(float(side))) for side in astuple(self))
        mask = np.zeros((height, width), np.uint8)
        mask[top:bottom, left:right] = 1
        if not mask.any():
            raise ValueError(f"{self} holds no pixel of a picture of {width} x {height} pixels")
        return mask


@dataclass(frozen=True)
class Points:
    """Some pixels (x, y) of the object and, if wanted, of what surrounds it; of scribbles, all their pixels.

    Attributes:
        of_object: One or more.
        of_background: Any number.
    """

    of_object: Sequence[Point]
    of_background: Sequence[Point] = ()

    def check(self, height: int, width: int) -> None:
        """Raises ValueError if there is none of the object, or one that is no pair or outside the picture."""
        of_object, of_background = _pairs(self.of_object), _pairs(self.of_background)
        if not of_object:
            raise ValueError("Points needs at least one point of the object")
        for x, y in (*of_object, *of_background):
            if not (0 <= x < width and 0 <= y < height):
                raise ValueError(f"the point ({x:g}, {y:g}) is outside a picture of {width} x {height} pixels")


def _is_finite(number: Any) -> bool:
    try:
        return math.isfinite(number)
    except (TypeError, ValueError, OverflowError):
        return False


def _pairs(points: Any) -> list[Point]:
    """Points as pairs of numbers, from a list of pairs or an array (n, 2)."""
    try:
        found = np.asarray(points, float)
    except (TypeError, ValueError):  # text, or pairs of unequal lengths
        found = np.empty(())
    if found.shape != (0,) and (found.ndim != 2 or found.shape[1] != 2):
        raise ValueError("Points takes lists of pairs (x, y) of pixels: give Points([(10, 20)]) for a single one")
    return [(x, y) for x, y in found.tolist()]


def grow(
    features: Tensor, points: Points, picture: tuple[int, int], covered: tuple[int, int], size: int
) -> np.ndarray:
    """Grows points into a mask (S, S) uint8 of 1 and 0, on features.

    The object is where the features resemble those of the object's points more than those of the background's;
    without the latter, where Otsu's threshold parts the similarities. Regions without points of the object are
    dropped.

    Args:
        features: Of unit length (C, h, w), for a square of S x S pixels.
        points: In pixels of the picture.
        picture: Height and width of the picture.
        covered: Height and width of what it covers in the square, from the upper left.
        size: S.
    """
    grid = features.shape[-2:]
    scale = torch.tensor([covered[1] / picture[1], covered[0] / picture[0]])

    def similarity(some: Sequence[Point]) -> tuple[Tensor, Tensor]:
        """Likeness (S, S) to the most similar of some points, and their places (n, 2), x and y in the square."""
        places = ((torch.tensor(np.asarray(some, float)) + 0.5) * scale).long().clamp(max=size - 1)
        cells = (places * torch.tensor([grid[1] / size, grid[0] / size])).long()
        seeds = features[:, cells[:, 1], cells[:, 0]]  # (C, n)
        return resize(torch.einsum("cn,chw->nhw", seeds, features).amax(0)[None, None], (size, size))[0, 0], places

    likeness, places = similarity(points.of_object)
    if len(points.of_background):
        inside = likeness > similarity(points.of_background)[0]
    else:
        values = (likeness[: covered[0], : covered[1]].clamp(0, 1) * 255).byte().cpu().numpy()
        cut, _ = cv2.threshold(values, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        inside = likeness * 255 > cut
    mask = inside.cpu().numpy().astype(np.uint8)
    mask[covered[0] :] = mask[:, covered[1] :] = 0
    xs, ys = places.T.numpy()
    mask[ys, xs] = 1
    _, parts = cv2.connectedComponents(mask, connectivity=8)
    return np.isin(parts, np.unique(parts[ys, xs])).astype(np.uint8)
