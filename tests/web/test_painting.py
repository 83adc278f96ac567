"""From what is painted in the browser to a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.predictors import SIZE, predictor, shot

from fss.predictor import Points
from fss.web.painting import BRUSH_SIZE, CANVAS, MEANINGS, canvas, grown, painted

OBJECT, BOX, PART = MEANINGS


def editor(*layers: np.ndarray) -> dict[str, Any]:
    """What an image editor sends for layers of opacity (h, w) in 0..255."""
    return {"layers": [np.dstack([np.full((*a.shape, 3), 200, np.uint8), a]) for a in layers]}


def test_paint_of_all_layers_is_the_mask() -> None:
    first, second = np.zeros((2, 6, 8), np.uint8)
    first[1:3, 2:5] = 255
    second[4, 6] = 128
    mask = painted(editor(first, second), 6, 8, OBJECT)
    assert np.array_equal(mask, (first | second) > 0)


def test_a_box_reaches_from_the_first_to_the_last_dab() -> None:
    dabs = np.zeros((10, 12), np.uint8)
    dabs[2, 9] = dabs[7, 3] = 255
    expected = np.zeros((10, 12), bool)
    expected[2:8, 3:10] = True
    assert np.array_equal(painted(editor(dabs), 10, 12, BOX), expected)


def test_one_dab_is_no_box() -> None:
    canvas_size = (CANVAS // 2, CANVAS)
    dab = np.zeros(canvas_size, np.uint8)
    dab[100 : 100 + BRUSH_SIZE, 200 : 200 + BRUSH_SIZE] = 255
    with pytest.raises(ValueError, match="One dab makes no box"):
        painted(editor(dab), CANVAS, 2 * CANVAS, BOX)
    assert painted(editor(dab), CANVAS, 2 * CANVAS, OBJECT).sum() == (2 * BRUSH_SIZE) ** 2
    two = dab | np.roll(dab, (60, 40), (0, 1))
    assert painted(editor(two), *canvas_size, BOX).sum() == (BRUSH_SIZE + 60) * (BRUSH_SIZE + 40)
    small = np.zeros((40, 60), np.uint8)  # here, a box may be as small as the brush
    small[5:15, 5:15] = 255
    assert painted(editor(small), 40, 60, BOX).sum() == 100


def test_the_brushs_faint_rim_does_not_count() -> None:
    paint = np.zeros((5, 5), np.uint8)
    paint[2, 2], paint[2, 3] = 255, 10
    assert painted(editor(paint), 5, 5, OBJECT).sum() == 1


def test_paint_on_a_smaller_canvas_covers_the_same_part_of_the_picture() -> None:
    image = np.zeros((600, 2 * CANVAS, 3), np.uint8)
    image[100:300, 400:1000] = 255
    background = canvas(image)["background"]
    assert background.shape == (300, CANVAS, 3)
    mask = painted(editor(background[..., 0]), 600, 2 * CANVAS, OBJECT)
    assert np.array_equal(mask, image[..., 0] > 0)


def test_small_pictures_are_painted_at_their_size() -> None:
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    value = canvas(image)
    assert np.array_equal(value["background"], image)
    assert value["layers"] == []


@pytest.mark.parametrize("value", [None, {"layers": []}, editor(np.zeros((4, 4), np.uint8))])
@pytest.mark.parametrize("meaning", MEANINGS)
def test_nothing_painted(value: dict[str, Any] | None, meaning: Any) -> None:
    with pytest.raises(ValueError, match="Nothing is painted"):
        painted(value, 4, 4, meaning)


def test_everything_painted() -> None:
    with pytest.raises(ValueError, match="whole picture"):
        painted(editor(np.full((4, 4), 255, np.uint8)), 4, 4, OBJECT)


def test_a_stroke_grows_as_points_do() -> None:
    picture, truth = shot(1, SIZE, SIZE)  # as large as the network's square
    part = truth & np.roll(truth, 6, axis=0) & np.roll(truth, -6, axis=0)
    mask = grown(predictor("prior"), picture, part)
    points = Points([(int(x), int(y)) for y, x in np.argwhere(part)])
    expected = predictor("prior").fit(picture, points).supports("object")[0].mask.numpy() == 1
    assert 0 < part.sum() < 200  # every pixel is a point
    assert np.array_equal(mask, expected)
    assert mask[part].all()
    larger = np.ones((3 * SIZE, 2 * SIZE, 3), np.uint8) * 9
    larger[20:60, 30:70] = 200
    assert grown(predictor("prior"), larger, larger[..., 0] > 9).shape == larger.shape[:2]
