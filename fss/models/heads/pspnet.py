"""PSPNet's head: the base learner, which knows the base classes.

Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, as in the published program chunbolang/BAM, whose
parameter names are kept.

Shapes: B batch, C channels, h w feature height and width, N base classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fss.resize import resize


class PyramidPooling(nn.Module):
    """Features beside their averages over coarse grids, (B, C, h, w) -> (B, C + bins * (C // bins), h, w).

    Args:
        channels: C.
        bins: Sides of the grids.
    """

    def __init__(self, channels: int, bins: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        reduced = channels // len(bins)
        self.channels = channels + reduced * len(bins)
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(side),
                nn.Conv2d(channels, reduced, 1, bias=False),
                nn.BatchNorm2d(reduced),
                nn.ReLU(inplace=True),
            )
            for side in bins
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, *(resize(pooled(x), x.shape[-2:]) for pooled in self.features)], 1)


class PSPHead(nn.Sequential):
    """High features (B, C, h, w) to logits (B, N + 1, h, w), background first.

    Args:
        channels: C.
        base_classes: N.
        width: Channels before the classifier.
    """

    def __init__(self, channels: int, base_classes: int, width: int = 512) -> None:
        pooling = PyramidPooling(channels)
        super().__init__(
            pooling,
            nn.Sequential(
                nn.Conv2d(pooling.channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.Dropout2d(0.1),
                nn.Conv2d(width, base_classes + 1, 1),
            ),
        )
