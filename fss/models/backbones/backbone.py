"""What every backbone offers to the heads and to the tunings.

Shapes: B batch, S image side, C channels, h w feature height and width; low, mid and high are feature maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.resize import resize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Channels(NamedTuple):
    """Channel counts of the three feature maps."""

    low: int
    mid: int
    high: int


class Lower(NamedTuple):
    """What `lower` gives: low (B, C, h, w) and mid (B, C, h, w) on one grid."""

    low: Tensor
    mid: Tensor


class Backbone(nn.Module):
    """A feature extractor in two parts, so that supports can be masked between them.

    Args:
        channels: Channel counts of low, mid and high.
        mean: Per-channel mean of the images that the weights expect, as a fraction of 255.
        std: Per-channel standard deviation, likewise.

    Attributes:
        channels: As given.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: Channels, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.channels = channels
        # not part of checkpoints: these are settings, not weights
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """RGB images (..., 3, S, S) in 0..255, of any type, to what the weights expect (float)."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    @property
    def stem_modules(self) -> tuple[nn.Module, ...]:
        """What `stem` runs."""
        return ()

    def stem(self, images: Tensor) -> Tensor:
        """The first part of `lower`, rarely tuned: stages 0 and 1 where they can be run alone, else nothing.

        Args:
            images: Normalised (B, 3, S, S).
        """
        return images

    def after_stem(self, stem: Tensor) -> Lower:
        """The rest of `lower`."""
        raise NotImplementedError

    def lower(self, images: Tensor) -> Lower:
        """Normalised images (B, 3, S, S) to low and mid features."""
        return self.after_stem(self.stem(images))

    def upper(self, lower: Lower, mask: Tensor | None = None) -> Tensor:
        """High features (B, C, h, w), from which the prior mask is made.

        Args:
            lower: Low and mid features.
            mask: Foreground of a support (B, 1, S, S) in 0..1; the features are multiplied by it first.
        """
        raise NotImplementedError

    def stage_of(self, name: str) -> int:
        """The stage, 0 to 4, that a submodule or parameter belongs to (ResNet's layer numbers)."""
        raise NotImplementedError


class LayeredBackbone(Backbone):
    """The published programs' kind of backbone: five parts, `layer0` to `layer4`.

    low = layer 2 (on mid's grid), mid = layer 3, high = layer 4 of mid * mask.

    Args:
        layers: The five parts.
        channels: Channel counts of layers 2, 3 and 4.
        high: Where the prior mask comes from: "layer4" as published, or "low+mid", the two maps with
            each location scaled to unit length, which spares running layer 4.
        mean, std: See `Backbone`.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        channels: Channels,
        high: Literal["layer4", "low+mid"] = "layer4",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        if high not in ("layer4", "low+mid"):
            raise ValueError(f"backbone.high is {high!r}, must be 'layer4' or 'low+mid'")
        if high == "low+mid":
            channels = channels._replace(high=channels.low + channels.mid)
        super().__init__(channels, mean, std)
        self.layer0, self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.high = high

    @property
    def stem_modules(self) -> tuple[nn.Module, ...]:
        return (self.layer0, self.layer1)

    def stem(self, images: Tensor) -> Tensor:
        return self.layer1(self.layer0(images))

    def after_stem(self, stem: Tensor) -> Lower:
        low = self.layer2(stem)
        mid = self.layer3(low)
        return Lower(resize(low, mid.shape[-2:]), mid)

    def upper(self, lower: Lower, mask: Tensor | None = None) -> Tensor:
        if self.high == "low+mid":
            return masked_stack([F.normalize(maps, dim=1) for maps in lower], mask)
        mid = lower.mid if mask is None else lower.mid * resize(mask, lower.mid.shape[-2:])
        return self.layer4(mid)

    def stage_of(self, name: str) -> int:
        return int(name.removeprefix("layer")[0])


def masked_stack(maps: Sequence[Tensor], mask: Tensor | None) -> Tensor:
    """Maps (B, C, h, w) on one grid side by side, multiplied by a mask (B, 1, S, S)."""
    stacked = torch.cat(list(maps), dim=1)
    return stacked if mask is None else stacked * resize(mask, stacked.shape[-2:])
