"""Feature extractors: `lower(images) -> (low, mid)`, `upper((low, mid), mask) -> high`, `channels`."""

from fss.models.backbones.backbone import Backbone, Channels, LayeredBackbone, Lower
from fss.models.backbones.resnet import ResNetBackbone
from fss.models.backbones.timm import TimmBackbone
from fss.models.backbones.vgg import VGGBackbone
from fss.models.backbones.vit import ViTBackbone

__all__ = [
    "Backbone",
    "Channels",
    "LayeredBackbone",
    "Lower",
    "ResNetBackbone",
    "TimmBackbone",
    "VGGBackbone",
    "ViTBackbone",
]
