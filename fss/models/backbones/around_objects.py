"""Layers run where an object needs them: of a support, only high features on the object are ever used.

Shapes: B batch, C channels, h w feature height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
    return torch.cat([_around(blocks, reach, *pair) for pair in zip(maps.split(1), mask.split(1), strict=True)])


def _around(
    blocks: Sequence[Callable[[Tensor], Tensor]], reach: Sequence[int], maps: Tensor, mask: Tensor
) -> Tensor:
    h, w = maps.shape[-2:]
    inside = mask[0, 0] != 0
    if not inside.any():
        inside = torch.ones_like(inside)
    box = [_ends(inside.any(1)), _ends(inside.any(0))]  # first and one past the last row and column
    before, rest = [(0, h), (0, w)], sum(reach)
    for block, own in zip(blocks, reach, strict=True):
        needed = _grown(box, rest, (h, w))
        maps = block(_cut(maps, before, needed))
        before, rest = needed, rest - own
    (top, bottom), (left, right) = box
    return F.pad(_cut(maps, before, box), (left, w - right, top, h - bottom))


def _ends(chosen: Tensor) -> tuple[int, int]:
    at = chosen.nonzero()[:, 0]
    return int(at[0]), int(at[-1]) + 1


def _grown(box: Sequence[tuple[int, int]], by: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    return [(max(0, a - by), min(side, b + by)) for (a, b), side in zip(box, size, strict=True)]


def _cut(maps: Tensor, from_: Sequence[tuple[int, int]], to: Sequence[tuple[int, int]]) -> Tensor:
    (top, bottom), (left, right) = ((a - start, b - start) for (start, _), (a, b) in zip(from_, to, strict=True))
    return maps[..., top:bottom, left:right]


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
