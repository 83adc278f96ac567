"""The published training augmentation, from pictures of any size to S x S.

Shapes: h w height and width of the picture, S side of the result, in pixels. Images are RGB in 0..255 (normalised
later, on the device); masks contain 1 for the object, 0 for background, and 255 for ignored pixels.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from typing import Any

# otherwise albumentations checks its web site for a newer release when imported
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
from albumentations.core.type_definitions import Targets

from fss.data.preprocessing import check_size
from fss.labels import IGNORE

MEAN_COLOR = (124, 116, 104)  # ImageNet mean in RGB, rounded to integers


class Rotate(A.Rotate):
    """Rotation of RGB pictures by way of RGBA, which OpenCV takes two thirds of the time for; the same pixels."""

    def apply(self, img: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        rotated = super().apply(cv2.cvtColor(img, cv2.COLOR_RGB2RGBA), *args, **params)
        return cv2.cvtColor(rotated, cv2.COLOR_RGBA2RGB)


class GaussianBlur5(A.ImageOnlyTransform):
    """Blur with OpenCV's own 5 x 5 kernel, as published; albumentations computes a different one."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return cv2.GaussianBlur(img, (5, 5), 0)


class ObjectCrop(A.DualTransform):
    """Random crop that keeps most of the object.

    The crop is redrawn at most `tries` times until it contains at least a fraction `keep` of the object's pixels;
    if that fails, the last one is used, as in the published programs.

    Args:
        size: Side of the crop in pixels; the image must be at least as large.
        keep: Fraction of the object's pixels to keep.
        tries: Maximum number of redraws.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    def __init__(self, size: int, keep: float = 0.85, tries: int = 31) -> None:
        super().__init__(p=1.0)
        self.size, self.keep, self.tries = size, keep, tries

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, int]:
        object_mask = data["mask"] == 1
        height, width = object_mask.shape
        needed = self.keep * np.count_nonzero(object_mask)
        for _ in range(1 + self.tries):
            top = self.py_random.randint(0, height - self.size)
            left = self.py_random.randint(0, width - self.size)
            if np.count_nonzero(object_mask[top : top + self.size, left : left + self.size]) >= needed:
                break
        return {"top": top, "left": left}

    def apply(self, img: np.ndarray, top: int, left: int, **params: Any) -> np.ndarray:
        return img[top : top + self.size, left : left + self.size]

    def apply_to_mask(self, mask: np.ndarray, top: int, left: int, **params: Any) -> np.ndarray:
        return mask[top : top + self.size, left : left + self.size]

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ("size", "keep", "tries")


class TrainingTransform:
    """The published augmentation; images stay uint8.

    Scaling; rotation with probability 1/2, where uncovered pixels get the mean colour and label 255; 5 x 5
    Gaussian blur and horizontal flip, each with probability 1/2; padding to S; and a crop that keeps the object.

    Args:
        size: Side of the result in pixels (S).
        scale: Smallest and largest scale factor (0.9, 1.1 for PASCAL-5i; 0.8, 1.25 for COCO-20i; 0.5, 2 for the
            base learner).
        rotation: Largest angle in degrees, to both sides.
        keep: Fraction of the object's pixels (mask == 1) that the crop keeps; 0 crops anywhere. In a base
            learner's labels these are the pixels of the first base class, as published.
    """

    def __init__(self, size: int, scale: Sequence[float], rotation: float = 10.0, keep: float = 0.85) -> None:
        check_size(size)
        given = "train_transform"  # below dataset, or of a base learner below dataset.base
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] < math.inf:
            raise ValueError(f"{given}.scale={list(scale)}: give the smallest and largest factor, both above 0")
        if not 0 <= rotation <= 180:
            raise ValueError(f"{given}.rotation={rotation}: give degrees in 0..180")
        if not 0 <= keep <= 1:
            raise ValueError(f"{given}.keep={keep}: give a fraction in 0..1")
        smallest, largest = scale
        fill = {"border_mode": cv2.BORDER_CONSTANT, "fill": MEAN_COLOR, "fill_mask": IGNORE}
        self._compose = A.Compose(
            [
                A.RandomScale((smallest - 1, largest - 1), p=1.0),
                Rotate((-rotation, rotation), p=0.5, **fill),
                GaussianBlur5(p=0.5),
                A.HorizontalFlip(p=0.5),
                A.PadIfNeeded(size, size, position="center", **fill),
                ObjectCrop(size, keep),
            ],
            additional_targets={"base_mask": "mask"},
        )

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, seed: int, base_mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, ...]:
        """Augments a picture and its mask: returns (S, S, 3) uint8 and (S, S).

        Args:
            image: (h, w, 3) uint8 RGB.
            mask: (h, w); the crop keeps the object, where the mask is 1.
            seed: Seed of all random choices.
            base_mask: A second mask (h, w), transformed likewise and returned third.
        """
        # one random stream for all steps; set_random_seed would start each step from the same number
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        given = {"image": image, "mask": mask} | ({} if base_mask is None else {"base_mask": base_mask})
        result = self._compose(**given)
        return tuple(np.ascontiguousarray(result[name]) for name in given)
