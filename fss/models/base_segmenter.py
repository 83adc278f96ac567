"""Ordinary segmentation of the base classes: the network of the base learner (BAM, stage 1).

Shapes: B batch, S image side, N base classes.
"""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from fss.models.backbones import Backbone
from fss.models.heads import PSPHead
from fss.resize import resize

GAIN = "gain"


class BaseLearnerSegmenter(nn.Module):
    """PSPNet on any backbone.

    Args:
        backbone: The feature extractor; the head receives its high features.
        head: The classifier, built for the backbone's number of high channels.

    Attributes:
        gain: What high features are multiplied by, so that those of a fixed length are as loud as the averages
            beside them, which have norms. 1 in checkpoints that do not say it.
    """

    gain: Tensor

    def __init__(self, backbone: Backbone, head: PSPHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.register_buffer(GAIN, torch.tensor(1 / backbone.high_rms))

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalised images (B, 3, S, S) to logits (B, N + 1, S, S), background first."""
        features = self.backbone.upper(self.backbone.lower(images)) * self.gain
        return resize(self.head(features), images.shape[-2:])

    def without_gain(self) -> Self:
        """A copy with the same answers whose head takes features as they are, as that of BAM does."""
        copied = copy.deepcopy(self)
        copied.head.take_in(copied.gain)
        copied.gain.fill_(1)
        return copied

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}{GAIN}", torch.tensor(1.0))
        super()._load_from_state_dict(state_dict, prefix, *rest)
