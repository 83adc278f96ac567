"""Boxes and points in place of masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.predictors import SIZE, predictor, shot

from fss.data.support_masks import fill_boxes
from fss.predictor import Box, Points
from fss.predictor.marks import grow

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_box_is_its_filled_mask() -> None:
    picture, mask = shot(0)
    ys, xs = np.nonzero(mask)
    box = Box(xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    np.testing.assert_array_equal(box.mask(*mask.shape), fill_boxes(mask.astype(np.uint8)))
    one, other = predictor().fit(picture, box), predictor().fit(picture, mask)  # a rectangle is its own box
    np.testing.assert_array_equal(one.predict(shot(3)[0]).margins, other.predict(shot(3)[0]).margins)
    np.testing.assert_array_equal(Box(-5, -5, 3, 2).mask(4, 5)[:2, :3], 1)
    with pytest.raises(ValueError, match="holds no pixel"):
        Box(9, 9, 20, 20).mask(4, 5)


def scene() -> tuple[torch.Tensor, np.ndarray]:
    """Features (2, 12, 12) of a picture that shows a thing twice, and where the things are."""
    things = np.zeros((12, 12), bool)
    things[1:5, 1:5] = things[7:11, 6:11] = True
    noise = torch.randn(2, 12, 12, generator=torch.Generator().manual_seed(0)) / 10
    kinds = torch.stack([torch.from_numpy(things), ~torch.from_numpy(things)]).float()
    return torch.nn.functional.normalize(kinds + noise, dim=0), things


@pytest.mark.parametrize("background", [(), ((1.0, 50.0), (55.0, 3.0))])
def test_points_grow_into_the_part_that_holds_them(background: tuple[tuple[float, float], ...]) -> None:
    features, things = scene()
    picture, covered, size = (96, 96), (48, 48), 48  # shown at half its size
    found = grow(features, Points([(20, 20)], background), picture, covered, size)
    expected = np.zeros((size, size), bool)
    expected[4:20, 4:20] = True  # the first thing, 4 pixels to a location
    assert (found.astype(bool) & expected).sum() / (found.astype(bool) | expected).sum() > 0.7
    assert not found[26:].any()
    both = grow(features, Points([(20, 20), (70, 70)], background), picture, covered, size)
    assert both[26:].any()
    assert (both >= found).all()
    assert things.sum() * 16 * 0.7 < both.sum() < things.sum() * 16 * 1.4


def test_points_lie_in_what_a_picture_covers() -> None:
    features, _ = scene()
    found = grow(features, Points([(199, 49)]), (50, 200), (12, 48), 48)
    assert found[11, 47] == 1
    assert not found[12:].any()


def test_supports_of_points_are_used_as_masks_are() -> None:
    picture, mask = shot(0)
    ys, xs = np.nonzero(mask)
    center = (int(xs.mean()), int(ys.mean()))
    found = predictor().fit({"cup": [(picture, Points([center], [(0, 0), (55, 39)]))]})
    [support] = found.supports("cup")
    assert set(support.mask.unique().tolist()) <= {0, 1, 255}
    assert support.mask[center[1] * SIZE // 56, center[0] * SIZE // 56] == 1
    assert found.predict(shot(3)[0]).margins.std() > 0
    assert found.fit(picture, Points([center]), name="ant").classes == ("ant", "cup")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (Points([]), "at least one point of the object"),
        (Points([(56, 3)]), "outside a picture of 56 x 40"),
        (Points([(5, 5)], [(3, -1)]), "outside a picture of 56 x 40"),
    ],
)
def test_points_that_are_refused(points: Points, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor().fit(shot(0)[0], points)
