"""Maps without the rows and columns at their ends that nobody needs.

Shapes: B batch, C channels, h w height and width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fss.contents import has_contents


class Margins(NamedTuple):
    """Numbers of columns and rows to leave out, in the order of `F.pad`."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0


NONE = Margins()


def cut(maps: Tensor, margins: Margins) -> Tensor:
    """A view of maps (B, C, h, w) without their margins."""
    h, w = maps.shape[-2:]
    return maps[..., margins.top : h - margins.bottom, margins.left : w - margins.right]


def ends(chosen: Tensor) -> tuple[int, int]:
    """The first and one past the last position (n,) that is chosen; some must be."""
    at = chosen.nonzero()[:, 0]
    return int(at[0]), int(at[-1]) + 1


def around(masks: Tensor) -> Margins:
    """What is outside of all objects of masks (B, 1, h, w), which are where these are not 0.

    None where there is no object, and on a GPU, which would have to wait to hear where they are.
    """
    if masks.device.type != "cpu" or not has_contents(masks):
        return NONE
    inside = (masks != 0).any(0)[0]  # (h, w)
    if not inside.any():
        return NONE
    (top, bottom), (left, right) = ends(inside.any(1)), ends(inside.any(0))
    h, w = inside.shape
    return Margins(left, w - right, top, h - bottom)
