"""A large picture in overlapping tiles, each seen as a picture of its own, and their answers blended.

Shapes: N classes, h w height and width of the picture, in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from fss.predictor.refusals import check_count

SMALLEST = 8  # pixels of a tile's side
OVERLAP = 0.25  # of a tile's side that neighbours share at least


class Tile(NamedTuple):
    """A part of a picture: rows `top` to `bottom`, columns `left` to `right`, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int


def tiles(height: int, width: int, side: int) -> list[Tile]:
    """Tiles of at most `side` x `side` pixels that cover a picture, evenly spread; one if it fits.

    Raises:
        ValueError: The side is no whole number of at least `SMALLEST` pixels.
    """
    check_count("tile", side, SMALLEST)
    rows, columns = (_spans(length, side) for length in (height, width))
    return [Tile(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def blend(parts: Iterable[tuple[Tile, Tensor]], height: int, width: int) -> Tensor:
    """Blends maps (N, rows, columns) of tiles to (N, h, w); a tile counts more the nearer its middle is."""
    total: Tensor | None = None
    weights = torch.zeros(height, width)
    for tile, maps in parts:
        if total is None:
            total = torch.zeros(len(maps), height, width)
        weight = _ramp(tile.bottom - tile.top)[:, None] * _ramp(tile.right - tile.left)
        place = (slice(tile.top, tile.bottom), slice(tile.left, tile.right))
        total[:, *place] += weight * maps
        weights[place] += weight
    assert total is not None
    return total / weights


def _spans(length: int, side: int) -> list[tuple[int, int]]:
    if length <= side:
        return [(0, length)]
    step = side * (1 - OVERLAP)
    count = 1 + -(-(length - side) // step)
    starts = [round(i * (length - side) / (count - 1)) for i in range(int(count))]
    return [(start, start + side) for start in starts]


def _ramp(length: int) -> Tensor:
    """Weights (length,) that grow from each end to the middle."""
    places = torch.arange(length) + 0.5
    return torch.minimum(places, length - places)
