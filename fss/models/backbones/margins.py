"""Maps without some rows and columns at their ends.

Shapes: B batch, C channels, h w height and width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


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
