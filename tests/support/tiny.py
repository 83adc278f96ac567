"""A backbone of a few hundred numbers, for tests of what stands on backbones, and a factorisation of no cost."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fss.models.backbones import Channels, LayeredBackbone

CHANNELS = Channels(4, 6, 5)


class TinyBackbone(LayeredBackbone):
    """Five layers with norms, named as in the published programs; low at stride 2, mid and high at 4."""

    def __init__(self, high: Literal["layer4", "low+mid"] = "layer4") -> None:
        sizes = [(3, 4, 1), (4, 4, 2), (4, 4, 1), (4, 6, 2), (6, 5, 1)]
        super().__init__(
            [
                nn.Sequential(nn.Conv2d(i, o, 3, stride, padding=1), nn.BatchNorm2d(o), nn.ReLU())
                for i, o, stride in sizes
            ],
            CHANNELS,
            high,
        )


def cheap_svd(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An exact U diag(S) V that takes no time: rows or columns of the weight sorted by their norm.

    For networks whose shapes and wiring are the matter; the true one takes seconds for each.
    """
    matrix = weight.detach().flatten(1)
    is_wide = matrix.shape[0] <= matrix.shape[1]
    rows = matrix if is_wide else matrix.T
    S, order = rows.norm(dim=1).sort(descending=True)
    identity, directions = torch.eye(len(rows), dtype=rows.dtype)[:, order], rows[order] / S[:, None]
    U, V = (identity, directions) if is_wide else (directions.T, identity.T)
    return U, S, V.reshape(-1, *weight.shape[1:])
