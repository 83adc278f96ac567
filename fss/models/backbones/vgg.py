"""VGG-16 with batch norm, split and pooled as in the published programs."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from fss.models.backbones.backbone import Channels, LayeredBackbone
from fss.models.backbones.frozen_norms import ConvSequence
from fss.models.backbones.weights import load_backbone_weights

# Index in torchvision's `features` at which each part starts; all parts but the last end with their pooling.
_STARTS = (0, 7, 14, 24, 34)
_END = 43  # the last pooling is left out


class VGGBackbone(LayeredBackbone):
    """VGG-16-BN; low 256 channels (stride 8, resized to mid's grid), mid and high 512 at stride 16.

    Args:
        weights: See `load_backbone_weights`; None leaves the weights random.
        high: See `LayeredBackbone`.
    """

    def __init__(self, weights: str | None = None, high: Literal["layer4", "low+mid"] = "layer4") -> None:
        features = make_layers(cfgs["D"], batch_norm=True)  # without the classifier, nine tenths of VGG's weights
        for module in features:
            if isinstance(module, nn.Conv2d):  # as torchvision's network has them
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, nn.MaxPool2d):
                module.ceil_mode = True
        ends = (*_STARTS[1:], _END)
        # a separate sequence for each part, so that indices start at 0 as in the published checkpoints
        layers = [ConvSequence(*features[start:end]) for start, end in zip(_STARTS, ends, strict=True)]
        super().__init__(layers, Channels(256, 512, 512), high)
        if weights is not None:
            names = {
                f"features.{start + i}": f"layer{layer}.{i}"
                for layer, (start, end) in enumerate(zip(_STARTS, ends, strict=True))
                for i in range(end - start)
            }
            load_backbone_weights(
                self, weights, rename=names, classifier=("classifier",), torchvision_model="vgg16_bn"
            )
