"""The interface of a backbone, as used by the heads and the tunings.

Shapes: B batch, S image side, C channels, h w feature height and width; low, mid and high are feature maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from fss.contents import has_contents
from fss.models.backbones.around_objects import reaches, run_around
from fss.resize import resize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NEVER_RUN = 5  # a stage, see `Backbone.stage_of`


class Channels(NamedTuple):
    """Channel counts of the three feature maps."""

    low: int
    mid: int
    high: int


class Lower(NamedTuple):
    """The output of `lower`.

    Attributes:
        low: (B, C, h, w).
        mid: (B, C, h, w), at the same resolution.
        rest: What else `upper` needs, (B, ...); None where low and mid are enough.
    """

    low: Tensor
    mid: Tensor
    rest: Tensor | None = None


class Backbone(nn.Module):
    """A feature extractor in two parts, so that supports can be masked between them.

    Args:
        channels: Number of channels of the low, mid and high features.
        mean: Mean of each colour channel in the images that the weights expect, as a fraction of 255.
        std: Standard deviation of each colour channel, in the same unit.

    Attributes:
        channels: Number of channels of the low, mid and high features.
        high_rms: Root of the mean square of the high features' channels, where each location's length is a fixed
            one; else 1.

    Raises:
        ValueError: Mean or standard deviation are none for three colours.
    """

    high_rms: float = 1.0
    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: Channels, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.channels = channels
        # left out of checkpoints: these are settings, not weights
        self.register_buffer("mean", _of_colours("mean", mean, -10, 10), persistent=False)
        self.register_buffer("std", _of_colours("std", std, 0.001, 10), persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalises RGB images (..., 3, S, S) in 0..255, of any dtype, as the weights expect (float)."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    @property
    def stem_modules(self) -> tuple[nn.Module, ...]:
        """The modules that `stem` runs."""
        return ()

    def stem(self, images: Tensor) -> Tensor:
        """The first part of `lower`, rarely tuned: stages 0 and 1 if they can be run on their own, else nothing.

        Args:
            images: Normalised images (B, 3, S, S).
        """
        return images

    def after_stem(self, stem: Tensor, mask: Tensor | None = None) -> Lower:
        """The rest of `lower`.

        Args:
            stem: Output of `stem`.
            mask: (B, 1, S, S), of pictures whose mid features are only used where it is not 0: others may be left
                out, as zeros. None if all are used.
        """
        raise NotImplementedError

    def lower(self, images: Tensor, mask: Tensor | None = None) -> Lower:
        """Extracts low and mid features from normalised images (B, 3, S, S); mask as for `after_stem`."""
        return self.after_stem(self.stem(images), mask)

    def upper(self, lower: Lower, mask: Tensor | None = None) -> Tensor:
        """Extracts high features (B, C, h, w), from which the prior mask is computed.

        Args:
            lower: Low and mid features.
            mask: Support mask (B, 1, S, S) in 0..1, by which the features are multiplied first; None for queries.
                With one, only the features where it is not 0 are to be used: others may be left out, as zeros.
        """
        raise NotImplementedError

    def keep_less(self) -> None:
        """Has training keep only what passes between layers, and compute the rest once more on the way back.

        Raises:
            ValueError: If this backbone cannot.
        """
        raise ValueError(f"checkpointing=true: a {type(self).__name__} cannot do this, leave it false")

    def stage_of(self, name: str) -> int:
        """Returns the stage (0 to 4, numbered like ResNet's layers) of the submodule or parameter `name`.

        What is never run, and so cannot be trained, is of stage `NEVER_RUN`.
        """
        raise NotImplementedError


def _of_colours(name: str, values: Sequence[float], least: float, most: float) -> Tensor:
    """Three numbers in a range that refuses those in 0..255 and those that leave no image, as (3, 1, 1)."""
    if len(values) != 3 or not all(least <= value <= most for value in values):  # NaN is in no range
        raise ValueError(
            f"backbone.network.{name}={list(values)}: must be three numbers in {least:g}..{most:g}, fractions "
            "of 255 for red, green and blue"
        )
    return torch.tensor([float(value) for value in values]).reshape(3, 1, 1)


class LayeredBackbone(Backbone):
    """A backbone as in the published programs: five parts, `layer0` to `layer4`.

    low = layer 2 (resized to mid's resolution), mid = layer 3, high = layer 4 applied to mid * mask. On a CPU,
    features of supports that no head uses are left out, see `run_around`.

    Args:
        layers: The five parts.
        channels: Number of output channels of layers 2, 3 and 4.
        high: The features for the prior mask: "layer4" as published, or "low+mid", both maps with
            each location scaled to unit length, which saves running layer 4.
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
        if high == "low+mid":
            self.high_rms = math.sqrt(2 / channels.high)
        self._reaches = {name: reaches(_blocks(getattr(self, name))) for name in ("layer3", "layer4")}
        self._keeps_less = False

    @property
    def stem_modules(self) -> tuple[nn.Module, ...]:
        return (self.layer0, self.layer1)

    def stem(self, images: Tensor) -> Tensor:
        return self.layer1(self.layer0(images))

    def after_stem(self, stem: Tensor, mask: Tensor | None = None) -> Lower:
        low = self._run("layer2", stem)
        mid = self._run("layer3", low, mask)
        return Lower(resize(low, mid.shape[-2:]), mid)

    def upper(self, lower: Lower, mask: Tensor | None = None) -> Tensor:
        if self.high == "low+mid":
            return masked_stack([F.normalize(maps, dim=1) for maps in (lower.low, lower.mid)], mask)
        mid = lower.mid if mask is None else lower.mid * resize(mask, lower.mid.shape[-2:])
        return self._run("layer4", mid, mask)

    def keep_less(self) -> None:
        self._keeps_less = True

    def _run(self, name: str, maps: Tensor, mask: Tensor | None = None) -> Tensor:
        """Runs a layer on maps (B, C, h, w); where possible, only around where the mask (B, 1, S, S) is not 0."""
        layer, reach = self.get_submodule(name), self._reaches.get(name)
        run: Callable[[Tensor], Tensor] = layer
        if mask is not None and reach is not None and _can_leave_out(layer, mask):
            objects = resize(mask, maps.shape[-2:])
            run = partial(run_around, _blocks(layer), reach, mask=objects)
        if self._keeps_less and torch.is_grad_enabled():
            return checkpoint(run, maps, use_reentrant=False)
        return run(maps)

    def stage_of(self, name: str) -> int:
        stage = int(name.removeprefix("layer")[0])
        return NEVER_RUN if stage == 4 and self.high == "low+mid" else stage


def _blocks(layer: nn.Module) -> list[nn.Module]:
    """The parts of a layer that run one after another."""
    return list(layer) if type(layer) is nn.Sequential else [layer]


def _can_leave_out(layer: nn.Module, mask: Tensor) -> bool:
    """Whether a layer may run around objects alone: not on a GPU, which would wait to hear where they are."""
    trains_norms = any(module.training for module in layer.modules() if isinstance(module, _BatchNorm))
    return mask.device.type == "cpu" and has_contents(mask) and not trains_norms


def masked_stack(maps: Sequence[Tensor], mask: Tensor | None) -> Tensor:
    """Concatenates maps (B, C, h, w) of equal size along channels and multiplies by a mask (B, 1, S, S)."""
    stacked = torch.cat(list(maps), dim=1)
    return stacked if mask is None else stacked * resize(mask, stacked.shape[-2:])
