"""Large pictures in tiles: they cover, blend, and change nothing where one suffices."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from support.predictors import predictor, shot

from fss.predictor.tiles import OVERLAP, Tile, blend, tiles

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("size", [(50, 70), (64, 64), (65, 64), (200, 30), (301, 777), (8, 8)])
def test_tiles_cover_with_overlap(size: tuple[int, int]) -> None:
    found = tiles(*size, 64)
    covered = np.zeros(size, int)
    for tile in found:
        assert tile.bottom - tile.top == min(64, size[0])
        assert tile.right - tile.left == min(64, size[1])
        assert min(tile) >= 0
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert covered.shape == size
    assert covered.min() == 1
    lefts = sorted({tile.left for tile in found})
    assert all(a + 64 - b >= int(64 * OVERLAP) for a, b in pairwise(lefts))


def test_blending_leaves_what_tiles_agree_on() -> None:
    whole = torch.randn(2, 90, 150)
    parts = [(t, whole[:, t.top : t.bottom, t.left : t.right]) for t in tiles(90, 150, 40)]
    torch.testing.assert_close(blend(parts, 90, 150), whole, atol=1e-5, rtol=1e-5)


def test_blending_goes_smoothly_from_one_tile_to_the_next() -> None:
    parts = [(Tile(0, 0, 4, 40), torch.zeros(1, 4, 40)), (Tile(0, 30, 4, 70), torch.ones(1, 4, 40))]
    row = blend(parts, 4, 70)[0, 2]
    assert (row[:30] == 0).all()
    assert (row[40:] == 1).all()
    assert (row.diff() >= 0).all()
    assert row.diff().max() < 0.15


def test_a_picture_that_fits_is_answered_as_without_tiles() -> None:
    found = predictor().fit(*shot(0))
    picture = shot(5, 50, 64)[0]
    plain, tiled = found.predict(picture), found.predict(picture, tile=64)
    np.testing.assert_array_equal(plain.margins, tiled.margins)
    assert plain.presence == tiled.presence


def test_tiles_are_answered_as_pictures_of_their_own() -> None:
    found = predictor("prior").fit({"cup": [shot(0)], "ant": [shot(1)]})
    picture = shot(5, 60, 150)[0]
    answer = found.predict(picture, tile=64)
    assert answer.margins.shape == (2, 60, 150)
    parts = tiles(60, 150, 64)
    alone = [found.predict(np.ascontiguousarray(picture[:, tile.left : tile.right])) for tile in parts]
    for name in found.classes:
        assert answer.presence[name] == max(one.presence[name] for one in alone)
    first_alone = parts[1].left  # columns that only the first tile covers
    np.testing.assert_allclose(answer.margins[..., :first_alone], alone[0].margins[..., :first_alone], atol=1e-5)


def test_tiles_abstain_on_their_own() -> None:
    found = predictor("prior").fit({"cup": [shot(0)]})
    picture = shot(5, 60, 150)[0]
    parts = tiles(60, 150, 64)
    presences = [found.predict(np.ascontiguousarray(picture[:, t.left : t.right])).presence["cup"] for t in parts]
    lowest, *_, highest = sorted(presences)
    found.presence_threshold = (lowest + highest) / 2
    answer = found.predict(picture, tile=64, abstain=True)
    number = presences.index(lowest)
    others = [t for i, t in enumerate(parts) if i != number]
    only = [
        c for c in range(parts[number].left, parts[number].right) if all(not t.left <= c < t.right for t in others)
    ]
    assert only
    assert not answer.labels[:, only].any()
    assert found.predict(picture, tile=64).labels[:, only].any()
    assert answer.present


def test_a_side_that_is_too_small() -> None:
    found = predictor().fit(*shot(0))
    with pytest.raises(ValueError, match="tile=4: must be at least 8"):
        found.predict(shot(1)[0], tile=4)
