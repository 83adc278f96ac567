"""PSPNet's head: the base learner, which segments the base classes.

Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017. Layers and parameter names are those of the published
program chunbolang/BAM.

Shapes: B batch, C channels, h w feature height and width, N base classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fss.models.heads.parts import convolve_parts


class PyramidPooling(nn.Module):
    """Features (B, C, h, w), and averages over n coarse grids with C // n channels each.

    Args:
        channels: Number of input channels C.
        bins: Side of each grid in cells.

    Attributes:
        channels: Number of channels in all.
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

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, *(pooled(x) for pooled in self.features)]


class PSPHead(nn.Sequential):
    """Maps high features (B, C, h, w) to logits (B, N + 1, h, w), background first.

    Args:
        channels: Number of input channels C.
        base_classes: Number of base classes N.
        width: Number of channels before the classifier.
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

    def forward(self, x: Tensor) -> Tensor:
        pooling, classify = self
        return convolve_parts(classify, pooling(x), x.shape[-2:])

    @torch.no_grad()
    def take_in(self, gain: Tensor) -> None:
        """Multiplies weights so that the logits are those of features multiplied by `gain`, a number above 0."""
        # of the averages, of all together, and the classifier
        *pooled, mixed, _ = (module for module in self.modules() if isinstance(module, nn.Conv2d))
        for conv in pooled:
            conv.weight *= gain
        mixed.weight[:, : pooled[0].in_channels] *= gain
