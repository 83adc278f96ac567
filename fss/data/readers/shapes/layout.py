"""Which objects lie where in a picture of `shapes`: the cheap half of drawing, all that the mask needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fss.data.readers.shapes.classes import CLASSES, OUTLINES

Bytes = npt.NDArray[np.uint8]

DISTRACTORS = (0.15, 0.45, 0.40)  # probability of 0, 1, 2 further objects
PLACEMENT_TRIES = 40  # for each distractor, before it is given up
MIN_VISIBLE = 0.6  # of an object's pixels that lie in the picture
MIN_AREA = 0.012  # of the picture
RADIUS = (0.15, 0.29)  # of the picture's side
MAX_ROTATION = 50.0  # degrees

_SUBPIXEL_BITS = 4  # OpenCV takes corners as integers, here in 1/16 pixel


@dataclass(frozen=True)
class Placed:
    """An object with its place in the picture.

    Attributes:
        class_id: 1..16.
        centre: the object frame's origin, (x, y) in pixels; a pixel's middle has integer coordinates.
        linear: (2, 2), takes (x, y) in radii to pixels relative to the centre.
        rows, columns: the window of the picture that holds the object.
        alpha: (window height, window width) uint8, how far the object covers each pixel, 0..255.
        solid: the same as bool, True where the mask has the object unless another one hides it.
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
        """The mean radius in pixels."""
        return float(np.sqrt(np.abs(np.linalg.det(self.linear))))


@dataclass(frozen=True)
class Layout:
    """What lies where: the objects from back to front, and the (size, size) uint8 mask that they make."""

    objects: tuple[Placed, ...]
    mask: Bytes


def place(class_id: int, size: int, rng: np.random.Generator) -> Placed:
    """Puts an object into a picture of size x size pixels, its middle 3/4 radius or more from the border."""
    radius = size * rng.uniform(*RADIUS)
    centre = rng.uniform(0.75 * radius, size - 0.75 * radius, 2)
    angle = np.deg2rad(rng.uniform(-MAX_ROTATION, MAX_ROTATION))
    scale_x, scale_y = rng.uniform(0.82, 1.2, 2)
    shear = rng.uniform(-0.15, 0.15)
    mirror = 1 if rng.random() < 0.5 else -1
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = radius * rotation @ np.array([[mirror * scale_x, shear], [0, scale_y]])

    loops = [loop @ linear.T + centre for loop in OUTLINES[CLASSES[class_id - 1].shape]]
    # The first loop is the outer one. A pixel of margin on each side is for the anti-aliasing.
    low = np.maximum(np.floor(loops[0].min(axis=0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(loops[0].max(axis=0)) + 2, size).astype(int)
    alpha = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    corners = [np.round((loop - low) * (1 << _SUBPIXEL_BITS)).astype(np.int32) for loop in loops]
    cv2.fillPoly(alpha, corners, (255,), cv2.LINE_AA, _SUBPIXEL_BITS)
    rows, columns = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
    return Placed(class_id, centre, linear, rows, columns, alpha, alpha > 127)


def stack(objects: Sequence[Placed], size: int) -> Bytes:
    """The mask of objects that lie on each other from back to front: (size, size), 0 or the class id."""
    mask = np.zeros((size, size), np.uint8)
    for item in objects:
        mask[item.rows, item.columns][item.solid] = item.class_id
    return mask


def well_visible(objects: Sequence[Placed], mask: Bytes) -> bool:
    """Whether the mask shows enough of every object (all of different classes) for it to be told."""
    for item in objects:
        seen = np.count_nonzero(mask[item.rows, item.columns] == item.class_id)
        if seen < MIN_VISIBLE * np.count_nonzero(item.solid) or seen <= MIN_AREA * mask.size:
            return False
    return True


def lay_out(target: int, size: int, rng: np.random.Generator) -> Layout:
    """A layout with the target class and 0 to 2 distractors of other classes, in front of it or behind.

    The layout is well visible after every step, hence at the end; a distractor for which no place is found
    is left out.
    """
    count = rng.choice(len(DISTRACTORS), p=DISTRACTORS)
    others = [c for c in range(1, len(CLASSES) + 1) if c != target]
    distractors = rng.choice(others, count, replace=False)

    objects = [place(target, size, rng)]
    mask = stack(objects, size)
    while not well_visible(objects, mask):  # rare: a small, thin object of which a part sticks out
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
