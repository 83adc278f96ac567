"""The prior mask as the prediction: a training-free baseline that any training has to beat.

Shapes: B batch, K shots, S image side, C channels, h w feature height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fss.models.heads.head import Features, Head, Prediction
from fss.models.heads.ops import prior_masks
from fss.resize import resize


class PriorMask(Head):
    """Foreground where the prior mask (mean over the shots) exceeds a threshold.

    Args:
        channels: Unused; present because every head is built from the backbone's channels.
        threshold: Threshold in 0..1; choose it on base classes.

    Raises:
        ValueError: If the threshold is outside 0..1.
    """

    looks_around = False

    def __init__(self, channels: Sequence[int], threshold: float) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"method.threshold is {threshold}, must be in 0..1")
        self.threshold = threshold

    def encode_support(self, features: Features, masks: Tensor) -> Tensor:
        """Returns high features (B, K, C, h, w), zero outside the object."""
        high = features.high.flatten(0, 1)
        mask = masks.flatten(0, 1)[:, None].to(high.dtype)
        return (high * resize(mask, high.shape[-2:])).unflatten(0, masks.shape[:2])

    def encode_query(self, features: Features) -> Tensor:
        """Returns high features (B, C, h, w)."""
        return features.high

    def decode(
        self, query: Tensor, support: Tensor, size: tuple[int, int], own_class: Tensor | None = None
    ) -> Prediction:
        prior = prior_masks(query, support).mean(1, keepdim=True)
        margin = resize(prior, size) - self.threshold
        return Prediction(torch.cat([-margin, margin], 1), prior)
