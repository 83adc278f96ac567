"""Preprocessing for evaluation and prediction, from pictures of any size to S x S.

Shapes: h w height and width of the picture, S side of the result, in pixels. Images are RGB in 0..255 (normalised
later, on the device); masks contain 1 for the object, 0 for background, and 255 for ignored pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from fss.geometry import Geometry, check_geometry, fitted
from fss.labels import IGNORE


class EvaluationTransform:
    """Preprocessing without chance: resized to fit, placed top-left on black; labels are padded with 255.

    Args:
        size: Side of the result in pixels (S).
        geometry: How the picture lies in the square; see `fss.geometry.fitted`.
    """

    def __init__(self, size: int, geometry: Geometry = "published") -> None:
        check_size(size)
        check_geometry(geometry)
        self.size, self.geometry = size, geometry

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, seed: int = 0, base_mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, ...]:
        """Preprocesses a picture and its mask: returns (S, S, 3) float32 in 0..255 and (S, S); nothing is random.

        Args:
            image: (h, w, 3) uint8 RGB.
            mask: (h, w) labels.
            seed: Unused; present so that all transforms have the same signature.
            base_mask: A second mask (h, w), transformed likewise and returned third.
        """
        height, width = fitted(mask.shape[0], mask.shape[1], self.size, self.geometry)
        # of OpenCV's two kinds the published programs use the one that takes a pixel's upper left corner
        nearest = cv2.INTER_NEAREST if self.geometry == "published" else cv2.INTER_NEAREST_EXACT
        # in float32, since the published program resizes floats; rounding would show in the third digit
        resized = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        square = np.zeros((self.size, self.size, 3), np.float32)
        square[:height, :width] = resized
        squares = [square]
        for labels in (mask, base_mask):
            if labels is not None:
                square = np.full((self.size, self.size), IGNORE, np.uint8)
                square[:height, :width] = cv2.resize(labels, (width, height), interpolation=nearest)
                squares.append(square)
        return tuple(squares)


def check_size(size: int) -> None:
    """Raises ValueError for a side that is none."""
    if not isinstance(size, int) or size < 8:
        raise ValueError(f"dataset.size={size}: must be a whole number of pixels, at least 8")
