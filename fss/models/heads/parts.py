"""Convolutions of maps that are concatenated, without concatenating them.

Such a convolution is the sum of those of its parts. Coarse parts, which would be resized first, are convolved as
they are: resizing and convolving are both linear, so that either may come first. Equal up to rounding.

Shapes: B batch, C channels, O output channels, h w height and width, kh kw kernel, n cells of a coarse part.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.resize import resize


def convolve_parts(layer: nn.Module, parts: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """A convolution, or a sequence that begins with one, of all parts resized and concatenated.

    Args:
        layer: One group, stride and dilation 1, padded by zeros so that it keeps the resolution.
        parts: Maps (B, C, ...) of any resolution, with as many channels in all as the convolution takes.
        size: Height and width of the output.
    """
    conv, *rest = layer if isinstance(layer, nn.Sequential) else [layer]
    assert isinstance(conv, nn.Conv2d)
    if torch.compiler.is_exporting():  # runtimes know what to do with the plain form
        x = conv(torch.cat([resize(part, size) for part in parts], 1))
    else:
        weights = conv.weight.split([part.shape[1] for part in parts], 1)
        x, *others = [
            F.conv2d(part, weight, padding=conv.padding)
            if part.shape[-2:] == tuple(size)
            else _of_coarse(part, weight, size)
            for part, weight in zip(parts, weights, strict=True)
        ]
        for other in others:
            x = x + other
        if conv.bias is not None:
            x = x + conv.bias[:, None, None]
        x = x.expand(*x.shape[:2], *size)
    for module in rest:
        x = module(x)
    return x


def _of_coarse(part: Tensor, weight: Tensor, size: tuple[int, ...]) -> Tensor:
    """Convolves a coarse part by a weight (O, C, kh, kw): (B, O, *size), or (B, O, 1, 1) if it is constant."""
    kernel = weight.shape[-2:]
    if kernel == (1, 1):
        mixed = F.conv2d(part, weight)
        return mixed if part.shape[-2:] == (1, 1) else resize(mixed, size)
    # what each cell contributes through each element of the kernel, and where to
    mixed = torch.einsum("bcn,ocx->bnxo", part.flatten(2), weight.flatten(2)).flatten(1, 2)
    spread = _spread(part, size, kernel).flatten(0, 1).T  # (h * w, n * kh * kw)
    return (spread @ mixed).unflatten(1, size).permute(0, 3, 1, 2)


def _spread(part: Tensor, size: tuple[int, ...], kernel: tuple[int, ...]) -> Tensor:
    """How much of each cell each element of a kernel meets at each location: (n, kh * kw, h * w).

    Beyond the border it meets zeros, as those of padding.
    """
    h, w = part.shape[-2:]
    cells = torch.eye(h * w, dtype=part.dtype, device=part.device).reshape(h * w, 1, h, w)
    met = F.unfold(resize(cells, size), kernel, padding=(kernel[0] // 2, kernel[1] // 2))
    return met.reshape(h * w, -1, met.shape[-1])
