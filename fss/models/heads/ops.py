"""Operations shared by the heads, as pure functions.

Shapes: B batch, C channels, h w feature height and width, n = h * w locations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.contents import has_contents

AREA_EPS = 0.0005  # as published; it makes the prototype of an empty mask zero
COSINE_EPS = 1e-7  # as published


def masked_average_pool(features: Tensor, mask: Tensor) -> Tensor:
    """Prototype (B, C, 1, 1): mean of features (B, C, h, w) under a mask (B, 1, h, w) in 0..1."""
    total = (features * mask).sum(dim=(2, 3), keepdim=True)
    return total / (mask.sum(dim=(2, 3), keepdim=True) + AREA_EPS)


def prior_mask(query: Tensor, support: Tensor) -> Tensor:
    """Similarity of each query location to the most similar support location (PFENet, section 3.2).

    Cosine similarities are computed in float32 even under autocast: their maximum is ill-conditioned. For
    gradients only the similarity to the most similar location is kept, not those to all.

    Args:
        query: High features (B, C, h, w).
        support: High features of one shot (B, C, h', w'), zero outside the object.

    Returns:
        (B, 1, h, w), scaled to 0..1 for each query.
    """
    b, _, h, w = query.shape
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(query.dtype, torch.float32)
        q = query.to(dtype).flatten(2)  # (B, C, n)
        s = support.to(dtype).flatten(2).transpose(1, 2)  # (B, n', C)
        if torch.is_grad_enabled() and not torch.compiler.is_exporting():
            of_batch = s.shape[1] * torch.arange(b, device=s.device)[:, None]
            nearest = (_nearest(q.detach(), s.detach()) + of_batch).flatten()
            s = s.flatten(0, 1).index_select(0, nearest).unflatten(0, (b, -1))  # (B, n, C); gather would keep s
            norms = s.norm(dim=2) * q.norm(dim=1)
            best = (s * q.mT).sum(2) / (norms + COSINE_EPS)  # (B, n)
        else:
            if b == 1 and has_contents(s):
                s = s[:, _object(s[0])]
            norms = s.norm(dim=2, keepdim=True) @ q.norm(dim=1, keepdim=True)  # (B, n', n)
            best = (s @ q).div_(norms.add_(COSINE_EPS)).amax(dim=1)
        low, high = best.amin(1, keepdim=True), best.amax(1, keepdim=True)  # torch 2.11 cannot derive aminmax
        return ((best - low) / (high - low + COSINE_EPS)).reshape(b, 1, h, w)


def _nearest(query: Tensor, support: Tensor) -> Tensor:
    """The most similar location of the support (B, n', C) for each of the query (B, C, n): (B, n)."""
    directions = F.normalize(support, dim=2)
    if query.is_cuda or not has_contents(query):  # looking for the object would make a GPU wait
        return (directions @ query).argmax(1)
    found = []
    for q, s in zip(query, directions, strict=True):
        locations = _object(s).nonzero()[:, 0]
        found.append(locations[(s[locations] @ q).argmax(0)])
    return torch.stack(found)


def _object(support: Tensor) -> Tensor:
    """Which locations of a support (n', C) matter: (n',), the object and one other.

    All others are zero, and so is their similarity to everything.
    """
    outside = support.norm(dim=1) == 0
    return ~outside | (outside.cumsum(0) == 1)


def prior_masks(query: Tensor, supports: Tensor) -> Tensor:
    """`prior_mask` for each shot: query (B, C, h, w), supports (B, K, C, h', w') -> (B, K, h, w)."""
    if torch.compiler.is_exporting():  # a graph cannot count shots, but take them as one batch
        repeated = query[:, None].expand(-1, supports.shape[1], -1, -1, -1).flatten(0, 1)
        return prior_mask(repeated, supports.flatten(0, 1)).unflatten(0, (-1, supports.shape[1])).squeeze(2)
    return torch.cat([prior_mask(query, support) for support in supports.unbind(1)], dim=1)


def gram_matrix(features: Tensor) -> Tensor:
    """Cosine similarities between channels over all locations: (B, C, h, w) -> (B, C, C) (BAM, equation 8).

    Computed in float32 even under autocast.
    """
    with torch.autocast(features.device.type, enabled=False):
        maps = features.to(torch.promote_types(features.dtype, torch.float32)).flatten(2)  # (B, C, n)
        norms = maps.norm(dim=2, keepdim=True)  # (B, C, 1)
        return maps @ maps.mT / (norms @ norms.mT + COSINE_EPS)
