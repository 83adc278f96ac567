"""The prior mask as the prediction: a training-free baseline that any training has to beat.

Shapes: B batch, K shots, S image side, C channels, h w feature height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fss.models.heads.guided import checked_radius
from fss.models.heads.head import Features, Head, Prediction
from fss.models.heads.ops import prior_masks
from fss.resize import resize


class PriorQuery(NamedTuple):
    """An encoded query: high features (B, C, h, w); `Features.picture`."""

    high: Tensor
    picture: Tensor | None


class PriorMask(Head):
    """Foreground where the prior mask (mean over the shots) exceeds a threshold.

    Args:
        channels: Unused; present because every head is built from the backbone's channels.
        threshold: Threshold in 0..1; choose it on base classes.
        refine: See `Head.radius`.

    Raises:
        ValueError: If the threshold is outside 0..1, or `refine` is below 0.
    """

    looks_around = False

    def __init__(self, channels: Sequence[int], threshold: float, refine: int = 0) -> None:
        super().__init__()
        self.radius = checked_radius(refine)
        if not 0 <= threshold <= 1:
            raise ValueError(f"method.threshold is {threshold}, must be in 0..1")
        self.threshold = threshold

    def encode_support(self, features: Features, masks: Tensor) -> Tensor:
        """Returns high features (B, K, C, h, w), zero outside the object."""
        high = features.high.flatten(0, 1)
        mask = masks.flatten(0, 1)[:, None].to(high.dtype)
        return (high * resize(mask, high.shape[-2:])).unflatten(0, masks.shape[:2])

    def encode_query(self, features: Features) -> PriorQuery:
        return PriorQuery(features.high, features.picture)

    def decode(
        self, query: PriorQuery, support: Tensor, size: tuple[int, int], own_class: Tensor | None = None
    ) -> Prediction:
        prior = prior_masks(query.high, support).mean(1, keepdim=True)
        margin = prior - self.threshold
        return Prediction(self.upsampled(torch.cat([-margin, margin], 1), query.picture, size), prior)
