"""How a picture of any size lies in the S x S square that a network sees.

Two ways, each there and back: `published`, as the papers' programs have it, and `exact`, which loses nothing.

Shapes: h w height and width of the picture, S side of the square, all in pixels.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from fss.resize import resize

Geometry = Literal["published", "exact"]


def check_geometry(geometry: str) -> None:
    """Raises ValueError for a name that is none."""
    if geometry not in get_args(Geometry):
        raise ValueError(f"dataset.geometry={geometry!r}: must be 'published' or 'exact'")


def fitted(height: int, width: int, size: int, geometry: Geometry) -> tuple[int, int]:
    """Height and width that a picture is resized to; it lies top-left in the square.

    Args:
        height: h.
        width: w.
        size: S.
        geometry: "published": the longer side becomes S, then both are floored to a multiple of 8 (8 at least).
            "exact": the longer side becomes S and the other one keeps its proportion, up to 16 : 9. Of longer
            pictures the shorter side becomes 9/16 of S, or stays as it is if it has fewer pixels: a strip of few
            rows would show nothing, and could not be mapped back.
    """
    longer = max(height, width)
    if geometry == "published":
        rows, columns = (max(8, side * size // longer // 8 * 8) for side in (height, width))
        return rows, columns
    rows, columns = (max(round(side * size / longer), min(side, size * 9 // 16), 1) for side in (height, width))
    return rows, columns


def at_original_size(logits: Tensor, height: int, width: int, geometry: Geometry = "published") -> Tensor:
    """Logits (C, h, w) from logits (C, S, S) of a picture that lies top-left in the square.

    Args:
        logits: (C, S, S).
        height: h.
        width: w.
        geometry: "published": the logits are resized to a square of the picture's longer side, of which the
            picture is the top-left part, as if the resized picture had filled the S x S. "exact": what the picture
            covers is resized to the picture.
    """
    if geometry == "published":
        side = max(height, width)
        return resize(logits[None].float(), (side, side))[0, :, :height, :width]
    rows, columns = fitted(height, width, logits.shape[-1], geometry)
    covered = logits[None, :, :rows, :columns].float()
    return F.interpolate(covered, size=(height, width), mode="bilinear", align_corners=False)[0]
