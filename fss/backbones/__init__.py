"""Feature extractors: `lower(images) -> (low, mid)`, `upper((low, mid), mask) -> high`, `channels`."""

from fss.backbones.backbone import Backbone, Channels, LayeredBackbone, Lower
from fss.backbones.resnet import ResNetBackbone
from fss.backbones.timm import TimmBackbone
from fss.backbones.vgg import VGGBackbone

__all__ = [
    "Backbone",
    "Channels",
    "LayeredBackbone",
    "Lower",
    "ResNetBackbone",
    "TimmBackbone",
    "VGGBackbone",
]
