"""A backbone of a few hundred numbers, for tests of what stands on backbones."""

from __future__ import annotations

from torch import nn

from fss.models.backbones import Channels, LayeredBackbone

CHANNELS = Channels(4, 6, 5)


class TinyBackbone(LayeredBackbone):
    """Five layers with norms, named as in the published programs; low at stride 2, mid and high at 4."""

    def __init__(self) -> None:
        sizes = [(3, 4, 1), (4, 4, 2), (4, 4, 1), (4, 6, 2), (6, 5, 1)]
        super().__init__(
            [
                nn.Sequential(nn.Conv2d(i, o, 3, stride, padding=1), nn.BatchNorm2d(o), nn.ReLU())
                for i, o, stride in sizes
            ],
            CHANNELS,
        )
