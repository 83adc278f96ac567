"""Operations shared by the heads, as pure functions.

Shapes: B batch, C channels, h w feature height and width, n = h * w locations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fss.models.heads.cosine import COSINE_EPS, best_cosines

AREA_EPS = 0.0005  # as published; it makes the prototype of an empty mask zero


def masked_average_pool(features: Tensor, mask: Tensor) -> Tensor:
    """Prototype (B, C, 1, 1): mean of features (B, C, h, w) under a mask (B, 1, h, w) in 0..1."""
    total = (features * mask).sum(dim=(2, 3), keepdim=True)
    return total / (mask.sum(dim=(2, 3), keepdim=True) + AREA_EPS)


def prior_masks(query: Tensor, supports: Tensor) -> Tensor:
    """Similarity of each query location to the most similar support location (PFENet, section 3.2).

    Cosine similarities are computed in float32 even under autocast: their maximum is ill-conditioned.

    Args:
        query: High features (B, C, h, w).
        supports: High features (B, K, C, h', w'), zero outside the objects.

    Returns:
        (B, K, h, w), scaled to 0..1 for each query and shot.
    """
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(query.dtype, torch.float32)
        best = best_cosines(query.to(dtype).flatten(2), supports.to(dtype).flatten(3))  # (B, K, n)
        low, high = best.amin(2, keepdim=True), best.amax(2, keepdim=True)  # torch 2.11 cannot derive aminmax
        return ((best - low) / (high - low + COSINE_EPS)).unflatten(2, query.shape[2:])


def gram_matrix(features: Tensor) -> Tensor:
    """Cosine similarities between channels over all locations: (B, C, h, w) -> (B, C, C) (BAM, equation 8).

    Computed in float32 even under autocast.
    """
    with torch.autocast(features.device.type, enabled=False):
        maps = features.to(torch.promote_types(features.dtype, torch.float32)).flatten(2)  # (B, C, n)
        norms = maps.norm(dim=2, keepdim=True)  # (B, C, 1)
        return maps @ maps.mT / (norms @ norms.mT + COSINE_EPS)
