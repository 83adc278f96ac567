"""Ordinary segmentation of the base classes: the network of the base learner (BAM, stage 1).

Shapes: B batch, S image side, N base classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from fss.models.backbones import Backbone
from fss.models.heads import PSPHead
from fss.resize import resize


class BaseLearnerSegmenter(nn.Module):
    """PSPNet on any backbone.

    Args:
        backbone: The feature extractor; the head receives its high features.
        head: The classifier, built for the backbone's number of high channels.
    """

    def __init__(self, backbone: Backbone, head: PSPHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalised images (B, 3, S, S) to logits (B, N + 1, S, S), background first."""
        features = self.backbone.upper(self.backbone.lower(images))
        return resize(self.head(features), images.shape[-2:])
