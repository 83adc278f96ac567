"""What somebody paints over a picture in the browser, as a mask of the picture.

Shapes: h w height and width of the picture, in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import cv2
import numpy as np

from fss.geometry import fitted
from fss.predictor import FewShotPredictor, Points

Meaning = Literal["the object", "a box around it", "a part of it"]
MEANINGS: tuple[Meaning, ...] = get_args(Meaning)
BRUSH = (255, 64, 160)  # RGB
BRUSH_SIZE = 24  # pixels of the canvas, at first
CANVAS = 800  # longer side of what is painted on: sharp on a screen, and quick to send

_POINTS = 200  # of a stroke that are grown: enough to follow it
_OPAQUE = 32  # alpha of 0..255 from which a pixel counts as painted; the brush's rim is smooth


def canvas(image: np.ndarray) -> dict[str, Any]:
    """The value of an image editor: a picture (h, w, 3) uint8 to paint on."""
    height, width = image.shape[:2]
    scale = min(1.0, CANVAS / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return {"background": picture, "layers": [], "composite": picture}


def painted(editor: Mapping[str, Any] | None, height: int, width: int, meaning: Meaning) -> np.ndarray:
    """The mask (h, w) bool that was painted.

    Args:
        editor: Value of an image editor; its layers are (h', w', 4) uint8 of the canvas's size.
        height: h of the picture.
        width: w of the picture.
        meaning: Whether the paint covers the object, or marks a box around it; then everything between the
            outermost dabs belongs to the mask. Paint on a part of it is the mask as it is, for `grown`.

    Raises:
        ValueError: If nothing is painted, or everything, or one dab in place of a box.
    """
    mask = np.zeros((height, width), bool)
    for layer in editor["layers"] if editor else ():
        paint = (layer[..., 3] >= _OPAQUE).astype(np.uint8)
        mask |= cv2.resize(paint, (width, height), interpolation=cv2.INTER_NEAREST) > 0
    if not mask.any():
        raise ValueError("Nothing is painted yet: paint over the object with the brush, then add the example.")
    if meaning == "a box around it":
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if _is_dab(len(rows), len(columns), height, width):
            raise ValueError("One dab makes no box: dab two opposite corners of it, or draw its outline.")
        mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    if mask.all():
        raise ValueError("The whole picture is painted: leave out what does not belong to the object.")
    return mask


def _is_dab(rows: int, columns: int, height: int, width: int) -> bool:
    """Whether a box is no larger than the brush makes in one place, on a canvas that has room for more."""
    side = max(rows, columns) / max(height, width)
    of_canvas = min(CANVAS, max(height, width))
    return side * of_canvas <= 1.25 * BRUSH_SIZE < of_canvas / 4


def grown(predictor: FewShotPredictor, image: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The mask (h, w) bool of an object of which a part is painted; see `Points`.

    Args:
        predictor: One without supports, which keeps the result as one.
        image: The picture, (h, w, 3) uint8.
        part: (h, w) bool, what is painted.
    """
    height, width = part.shape
    places = np.argwhere(part)[:, ::-1]
    chosen = places[np.linspace(0, len(places) - 1, min(len(places), _POINTS)).round().astype(int)]
    predictor.fit(image, Points([(x, y) for x, y in chosen.tolist()]))
    rows, columns = fitted(height, width, predictor.size, predictor.geometry)
    mask = predictor.supports("object")[0].mask[:rows, :columns].numpy()
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) == 1
