"""Worked examples for a first look at the page, of pictures that are installed anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from fss.data.readers.pictures import read_image
from fss.data.readers.shapes import Shapes
from fss.data.readers.shapes.painting import photograph_path


class Shown(NamedTuple):
    """A picture that shows a thing: name of the thing, (h, w, 3) uint8 RGB, (h, w) bool."""

    name: str
    image: np.ndarray
    mask: np.ndarray


class Example(NamedTuple):
    """Supports, and queries (h, w, 3) uint8 RGB by their names."""

    supports: list[Shown]
    queries: dict[str, np.ndarray]


# Centres and radii in pixels of the coins in the upper half of scikit-image's coins.png
_COINS = (
    *((44, 52, 22), (99, 56, 19), (154, 51, 23), (214, 50, 24), (274, 52, 21), (335, 42, 29)),
    *((45, 124, 21), (102, 125, 19), (153, 127, 19), (206, 124, 21), (270, 119, 25), (335, 123, 19)),
)
_COINS_MIDDLE = 158  # the row of pixels between the halves

# Corners (x, y) in pixels of a rough outline of the motorcycle in motorcycle_left.png, as somebody would paint it
_MOTORCYCLE = (
    *((118, 205), (140, 200), (150, 160), (200, 162), (265, 202), (352, 190), (425, 162), (470, 165), (480, 120)),
    *((520, 100), (555, 125), (560, 180), (540, 195), (600, 275), (640, 305), (675, 360), (682, 410), (665, 445)),
    *((630, 445), (580, 420), (530, 350), (510, 320), (470, 340), (430, 375), (345, 380), (335, 425), (320, 420)),
    *((322, 370), (280, 375), (230, 398), (180, 395), (130, 350), (120, 300), (130, 262), (160, 245), (112, 240)),
)
_SHAPES = ("star-stripes", "ring-dots")


def coins() -> Example:
    """The upper half of a photograph of coins shows what a coin is; the lower half is searched."""
    photograph = read_image(photograph_path("coins.png"))
    upper, lower = np.split(photograph, [_COINS_MIDDLE])
    mask = np.zeros(upper.shape[:2], np.uint8)
    for x, y, radius in _COINS:
        cv2.circle(mask, (x, y), radius, 1, cv2.FILLED)
    return Example([Shown("coin", upper, mask > 0)], {"more coins": lower})


def motorcycle() -> Example:
    """A motorcycle from the left shows what it is; the same from the right is searched, and a cup of coffee."""
    left = read_image(photograph_path("motorcycle_left.png"))
    mask = cv2.fillPoly(np.zeros(left.shape[:2], np.uint8), [np.array(_MOTORCYCLE)], 1)
    queries = {"from the right": "motorcycle_right.png", "without one": "coffee.png"}
    return Example(
        [Shown("motorcycle", left, mask > 0)],
        {name: read_image(photograph_path(file)) for name, file in queries.items()},
    )


def shapes(shots: int = 2, queries: int = 4, size: int = 256) -> Example:
    """Two classes of the embedded data that the demo never trains on, in pictures with distractors.

    Args:
        shots: Supports of each class.
        queries: Pictures to search, half of them for each class.
        size: Side of a picture in pixels.
    """
    reader = Shapes("val", size, images=len(Shapes.classes) * (shots + queries))
    supports: list[Shown] = []
    searched: dict[str, np.ndarray] = {}
    for name in _SHAPES:
        label = reader.classes.index(name) + 1
        numbers = range(label - 1, len(reader), len(reader.classes))  # the pictures whose target is this class
        supports += [Shown(name, reader.image(i), reader.mask(i) == label) for i in numbers[:shots]]
        searched |= {
            f"picture {len(searched) + k + 1}": reader.image(i)
            for k, i in enumerate(numbers[shots : shots + queries // len(_SHAPES)])
        }
    return Example(supports, searched)


EXAMPLES: dict[str, Callable[[], Example]] = {"Coins": coins, "Motorcycle": motorcycle, "Two shapes": shapes}
"""What the page offers, by the words on its buttons."""
