"""ResNet-50 and ResNet-101, dilated to stride 8 as in the published programs."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torchvision.models.resnet import ResNet

from fss.models.backbones.backbone import Channels, LayeredBackbone
from fss.models.backbones.frozen_norms import Bottleneck, ConvSequence
from fss.models.backbones.weights import load_backbone_weights

BLOCKS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}  # in layers 1 to 4


def _deep_stem() -> ConvSequence:
    # Three 3x3 convolutions instead of one 7x7: the stem of the published weights.
    widths = [(3, 64, 2), (64, 64, 1), (64, 128, 1)]
    layers: list[nn.Module] = []
    for inputs, outputs, stride in widths:
        conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return ConvSequence(*layers, nn.MaxPool2d(3, stride=2, padding=1))


def _dilate(layer: nn.Module, dilation: int, first: int) -> None:
    # Dilates 3x3 convolutions instead of using a stride; the first block can have a different dilation.
    for name, module in layer.named_modules():
        if name.endswith("conv2") and isinstance(module, nn.Conv2d):
            own = first if name == "0.conv2" else dilation
            module.dilation = module.padding = (own, own)
            module.stride = (1, 1)
            # torch derives this from the padding in the constructor, and SVF reads it
            module._reversed_padding_repeated_twice = [own] * 4
        elif name.endswith("downsample.0") and isinstance(module, nn.Conv2d):
            module.stride = (1, 1)


class ResNetBackbone(LayeredBackbone):
    """Dilated ResNet; low 512, mid 1024 and high 2048 channels, all at stride 8.

    Parameters have the same names as in the published programs (`layer0.0.weight`,
    `layer1.0.conv1.weight`, ...).

    Args:
        depth: Number of layers: 50 or 101.
        stem: "deep" (three 3x3 convolutions, as in the published weights) or "torchvision" (one 7x7).
        weights: See `load_backbone_weights`; a torchvision enum name needs `stem="torchvision"`. None
            leaves the weights random.
        high: See `LayeredBackbone`.
        dilation: Which 3x3 convolutions are dilated: "all", by 2 in layer 3 and by 4 in layer 4 (BAM, PSPNet,
            dvlab's PFENet), or "after_first", with dilation 1 in layer 3's first block and 2 in layer 4's
            (torchvision's `replace_stride_with_dilation`; the SVF program's PFENet and baseline). Only the latter
            reproduces the features of the undilated network at the positions that its strides keep.

    Raises:
        ValueError: If depth, stem or dilation is unknown, or if the weights do not fit.
    """

    def __init__(
        self,
        depth: int = 50,
        stem: Literal["deep", "torchvision"] = "deep",
        weights: str | None = None,
        high: Literal["layer4", "low+mid"] = "layer4",
        dilation: Literal["all", "after_first"] = "all",
    ) -> None:
        if depth not in BLOCKS:
            raise ValueError(f"backbone.depth is {depth}, must be 50 or 101")
        if stem not in ("deep", "torchvision"):
            raise ValueError(f"backbone.stem is {stem!r}, must be 'deep' or 'torchvision'")
        if dilation not in ("all", "after_first"):
            raise ValueError(f"backbone.dilation is {dilation!r}, must be 'all' or 'after_first'")
        network = ResNet(Bottleneck, BLOCKS[depth])
        if stem == "deep":
            layer0: nn.Module = _deep_stem()
            first = network.layer1[0]
            assert isinstance(first, Bottleneck)
            assert first.downsample is not None
            first.conv1 = nn.Conv2d(128, 64, 1, bias=False)
            first.downsample[0] = nn.Conv2d(128, 256, 1, bias=False)
            names = {
                f"{kind}{i}": f"layer0.{at}"
                for i in (1, 2, 3)
                for kind, at in (("conv", 3 * i - 3), ("bn", 3 * i - 2))
            }
        else:
            layer0 = ConvSequence(network.conv1, network.bn1, network.relu, network.maxpool)
            names = {"conv1": "layer0.0", "bn1": "layer0.1"}
        _dilate(network.layer3, 2, first=2 if dilation == "all" else 1)
        _dilate(network.layer4, 4, first=4 if dilation == "all" else 2)
        layers = [layer0, network.layer1, network.layer2, network.layer3, network.layer4]
        super().__init__(layers, Channels(512, 1024, 2048), high)
        if weights is not None:
            enum = f"resnet{depth}" if stem == "torchvision" else None
            load_backbone_weights(self, weights, rename=names, classifier=("fc",), torchvision_model=enum)
