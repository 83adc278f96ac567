"""Places the objects in a picture of `shapes`: the cheap half of drawing, which is all that the mask needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fss.data.readers.shapes.classes import CLASSES, OUTLINES

Bytes = npt.NDArray[np.uint8]

DISTRACTORS = (0.15, 0.45, 0.40)  # probability of 0, 1 and 2 additional objects
PLACEMENT_TRIES = 40  # attempts to place a distractor before giving up
MIN_VISIBLE = 0.6  # fraction of an object's pixels inside the picture that must be visible
MIN_AREA = 0.012  # fraction of the picture that an object must cover
RADIUS = (0.15, 0.29)  # fraction of the picture's side
MAX_ROTATION = 50.0  # degrees

_SUBPIXEL_BITS = 4  # OpenCV takes corners as integers, here in 1/16 pixel


@dataclass(frozen=True)
class Placed:
    """An object and its position in the picture.

    Attributes:
        class_id: Class id, 1..16.
        centre: Origin of the object frame, (x, y) in pixels; pixel centres have integer coordinates.
        linear: (2, 2) matrix that maps (x, y) in radii to pixels relative to the centre.
        rows, columns: The window of the picture that contains the object.
        alpha: (window height, window width) uint8, coverage of each pixel by the object, 0..255.
        solid: The same as bool: True for pixels of the object's mask, unless another object hides them.
    """

    class_id: int
    centre: npt.NDArray[np.float64]
    linear: npt.NDArray[np.float64]
    rows: slice
    columns: slice
    alpha: Bytes
    solid: npt.NDArray[np.bool_]

    @property
    def radius(self) -> float:
        """Mean radius in pixels."""
        return float(np.sqrt(np.abs(np.linalg.det(self.linear))))


@dataclass(frozen=True)
class Layout:
    """The objects of a picture from back to front, and the resulting mask (size, size) uint8."""

    objects: tuple[Placed, ...]
    mask: Bytes


def place(class_id: int, size: int, rng: np.random.Generator) -> Placed:
    """Places an object in a picture of size x size pixels, its centre at least 3/4 radius from the border."""
    radius = size * rng.uniform(*RADIUS)
    centre = rng.uniform(0.75 * radius, size - 0.75 * radius, 2)
    angle = np.deg2rad(rng.uniform(-MAX_ROTATION, MAX_ROTATION))
    scale_x, scale_y = rng.uniform(0.82, 1.2, 2)
    shear = rng.uniform(-0.15, 0.15)
    mirror = 1 if rng.random() < 0.5 else -1
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = radius * rotation @ np.array([[mirror * scale_x, shear], [0, scale_y]])

    loops = [loop @ linear.T + centre for loop in OUTLINES[CLASSES[class_id - 1].shape]]
    # The first loop is the outer one. The margin of one pixel on each side is for anti-aliasing.
    low = np.maximum(np.floor(loops[0].min(axis=0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(loops[0].max(axis=0)) + 2, size).astype(int)
    alpha = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    corners = [np.round((loop - low) * (1 << _SUBPIXEL_BITS)).astype(np.int32) for loop in loops]
    cv2.fillPoly(alpha, corners, (255,), cv2.LINE_AA, _SUBPIXEL_BITS)
    rows, columns = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
    return Placed(class_id, centre, linear, rows, columns, alpha, alpha > 127)


def stack(objects: Sequence[Placed], size: int) -> Bytes:
    """Mask of objects stacked from back to front: (size, size), 0 or the class id."""
    mask = np.zeros((size, size), np.uint8)
    for item in objects:
        mask[item.rows, item.columns][item.solid] = item.class_id
    return mask


def well_visible(objects: Sequence[Placed], mask: Bytes) -> bool:
    """Whether enough of every object is visible to recognise it; all objects must be of different classes."""
    for item in objects:
        seen = np.count_nonzero(mask[item.rows, item.columns] == item.class_id)
        if seen < MIN_VISIBLE * np.count_nonzero(item.solid) or seen <= MIN_AREA * mask.size:
            return False
    return True


def lay_out(target: int, size: int, rng: np.random.Generator) -> Layout:
    """Draws a layout with the target class and 0 to 2 distractors of other classes, in front of or behind it.

    All objects are well visible after every step, and hence at the end; a distractor that cannot be placed is
    left out.
    """
    count = rng.choice(len(DISTRACTORS), p=DISTRACTORS)
    others = [c for c in range(1, len(CLASSES) + 1) if c != target]
    distractors = rng.choice(others, count, replace=False)

    objects = [place(target, size, rng)]
    mask = stack(objects, size)
    while not well_visible(objects, mask):  # rare: a small, thin object that is partly outside the picture
        objects = [place(target, size, rng)]
        mask = stack(objects, size)

    for distractor in distractors:
        for _ in range(PLACEMENT_TRIES):
            depth = int(rng.integers(len(objects) + 1))
            trial = [*objects[:depth], place(int(distractor), size, rng), *objects[depth:]]
            trial_mask = stack(trial, size)
            if well_visible(trial, trial_mask):
                objects, mask = trial, trial_mask
                break
    return Layout(tuple(objects), mask)
