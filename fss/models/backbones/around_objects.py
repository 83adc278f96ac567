"""Layers run where an object needs them: of a support, only high features on the object are ever used.

Shapes: B batch, C channels, h w feature height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fss.margins import Margins, cut, ends
from fss.models.backbones.frozen_norms import Bottleneck


def reaches(blocks: Sequence[nn.Module]) -> tuple[int, ...] | None:
    """How many locations away each block of plain layers looks at most; None if that is not so simple."""
    found = []
    for block in blocks:
        layers = [layer for layer in block.modules() if not list(layer.children())]
        if not all(_stays_in_place(layer) for layer in layers):
            return None
        convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        # of parallel branches this is too much, which does no harm
        found.append(sum(max(d * (k // 2) for d, k in zip(c.dilation, c.kernel_size, strict=True)) for c in convs))
    return tuple(found)


def run_around(
    blocks: Sequence[Callable[[Tensor], Tensor]], reach: Sequence[int], maps: Tensor, mask: Tensor
) -> Tensor:
    """Runs blocks on the bounding box of each object, with as much around it as they look at.

    The outputs in the box are those of whole maps, up to rounding; all others are zero. Without an object, the
    whole maps are run.

    Args:
        blocks: Which keep the resolution and have no norm in training.
        reach: `reaches(blocks)`.
        maps: (B, C, h, w).
        mask: (B, 1, h, w), where it is not 0 is the object.
    """
    found = [_around(blocks, reach, *pair) for pair in zip(maps.split(1), mask.split(1), strict=True)]
    return found[0] if len(found) == 1 else torch.cat(found)  # of one, it would be a copy


def _around(
    blocks: Sequence[Callable[[Tensor], Tensor]], reach: Sequence[int], maps: Tensor, mask: Tensor
) -> Tensor:
    h, w = maps.shape[-2:]
    inside = mask[0, 0] != 0
    if not inside.any():
        inside = torch.ones_like(inside)
    box = [ends(inside.any(1)), ends(inside.any(0))]  # first and one past the last row and column
    rest = sum(reach)
    seen = _grown(box, rest, (h, w))
    maps = cut(maps, _between(((0, h), (0, w)), seen))
    for block, own in zip(blocks, reach, strict=True):
        rest -= own
        needed = _grown(box, rest, (h, w))
        margins, seen = _between(seen, needed), needed
        maps = block(maps, margins) if isinstance(block, Bottleneck) else cut(block(maps), margins)
    return F.pad(maps, _between(((0, h), (0, w)), box))


def _grown(box: Sequence[tuple[int, int]], by: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    return [(max(0, a - by), min(side, b + by)) for (a, b), side in zip(box, size, strict=True)]


def _between(outer: Sequence[tuple[int, int]], inner: Sequence[tuple[int, int]]) -> Margins:
    """How far a box is within another; each is the first and one past the last row, and the same of columns."""
    (top, bottom), (left, right) = (
        (a - start, end - b) for (start, end), (a, b) in zip(outer, inner, strict=True)
    )
    return Margins(left, right, top, bottom)


def _stays_in_place(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        sides = zip(layer.padding, layer.dilation, layer.kernel_size, strict=False)
        return (
            not isinstance(layer.padding, str)
            and layer.padding_mode == "zeros"
            and set(layer.stride) == {1}
            and all(p == d * (k - 1) / 2 for p, d, k in sides)
        )
    return isinstance(layer, _BatchNorm | nn.ReLU)
