"""What a model is told of a support: its mask, boxes, or something wrong on purpose.

The wrong ones are controls. A model that uses its supports must do much worse with them than with the masks. One
that was trained without masks (`empty`) reaches what can be known without being shown the class, such as that most
pictures have one main object.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from fss.labels import IGNORE, ignored

SupportAnnotation = Literal["mask", "box", "box_published", "empty", "inverted", "other_class"]
OTHER_CLASS = "other_class"  # supports are then of other pictures too: `OtherClass`


def select(labels: np.ndarray, class_id: int) -> np.ndarray:
    """Mask of one class: 1 for its pixels, 255 for ignored pixels, 0 elsewhere."""
    mask = (labels == class_id).astype(np.uint8)
    mask[ignored(labels)] = IGNORE
    return mask


def support_mask(labels: np.ndarray, class_id: int, annotation: SupportAnnotation) -> np.ndarray:
    """Turns the labels of a support (h, w) into the annotation that the model receives.

    Args:
        labels: Class ids, 0 for background, the largest value of their type for ignored pixels.
        class_id: The episode's class.
        annotation: "mask", "box" or "box_published" (see `annotate`); or a control: "empty" marks nothing,
            "inverted" everything but the object, "other_class" the largest object that is of another class.

    Returns:
        1 object, 0 background, 255 ignored.
    """
    if annotation == OTHER_CLASS:
        class_id = _largest_other(labels, class_id)
    mask = select(labels, class_id)
    if annotation == "empty":
        mask[mask == 1] = 0
    elif annotation == "inverted":
        mask = np.where(mask == IGNORE, mask, 1 - np.minimum(mask, 1))
    return annotate(mask, annotation) if annotation in ("box", "box_published") else mask


def _largest_other(labels: np.ndarray, class_id: int) -> int:
    counts = np.bincount(labels[~ignored(labels)], minlength=class_id + 1)
    counts[[0, class_id]] = 0
    return int(counts.argmax())


def annotate(mask: np.ndarray, annotation: SupportAnnotation) -> np.ndarray:
    """Turns a support mask (h, w) into the annotation that the model receives.

    Args:
        mask: 1 object, 0 background, 255 ignored.
        annotation: "mask" keeps the mask, "box" fills the bounding box of each connected part, "box_published"
            extends these boxes by one pixel to the right and bottom, as BAM's program does.
    """
    if annotation == "mask":
        return mask
    return fill_boxes(mask, extend=1 if annotation == "box_published" else 0)


def fill_boxes(mask: np.ndarray, extend: int = 0) -> np.ndarray:
    """Fills the bounding box of each 8-connected part of a mask (h, w) with 1; 255 is kept.

    Args:
        mask: 1 object, 0 background, 255 ignored.
        extend: Number of pixels by which boxes are extended to the right and bottom.
    """
    filled = mask.copy()
    _, _, stats, _ = cv2.connectedComponentsWithStats((mask == 1).astype(np.uint8), connectivity=8)
    for left, top, width, height, _ in stats[1:]:
        filled[top : top + height + extend, left : left + width + extend] = 1
    filled[mask == IGNORE] = IGNORE
    return filled
