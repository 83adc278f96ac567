"""The cosine similarity to the most similar location of a support, which is what the prior mask shows.

Only the most similar location matters for the gradients, so that similarities to all others are not kept; neither
are copies of features.

Shapes: B batch, K shots, C channels, n query locations, n' support locations, m those of them that can be the most
similar.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fss.contents import has_contents

COSINE_EPS = 1e-7  # added to products of norms, as published


def best_cosines(query: Tensor, supports: Tensor) -> Tensor:
    """Cosine similarity of each query location to the most similar location of each support.

    Args:
        query: (B, C, n).
        supports: (B, K, C, n'), zero outside objects.

    Returns:
        (B, K, n).
    """
    b, k, c, n = supports.shape
    if torch.compiler.is_exporting():  # a graph cannot count shots, but take them as one batch
        repeated = query[:, None].expand(-1, k, -1, -1).flatten(0, 1)
        norms = repeated.norm(dim=1, keepdim=True)
        return _largest(repeated, norms, supports.flatten(0, 1)).unflatten(0, (-1, k))
    if not torch.is_grad_enabled():
        norms = query.norm(dim=1, keepdim=True)
        return torch.stack([_largest(query, norms, support) for support in supports.unbind(1)], 1)
    if torch.compiler.is_compiling():
        return torch.stack([_of_nearest(query, support) for support in supports.unbind(1)], 1)
    rows = supports.transpose(2, 3).reshape(-1, c)  # (B * K * n', C)
    counts = [n] * (b * k)
    if not rows.is_cuda and has_contents(rows):  # looking for objects would make a GPU wait
        found = [_object(lengths).nonzero()[:, 0] for lengths in rows.detach().norm(dim=1).split(n)]
        counts = [len(locations) for locations in found]
        rows = rows.index_select(0, torch.cat([i * n + locations for i, locations in enumerate(found)]))
    best: Tensor = _BestCosines.apply(query, rows, counts)
    return best.unflatten(0, (b, k))


class _BestCosines(torch.autograd.Function):
    """Best cosines (B * K, n) of a query (B, C, n) and rows (sum of all m, C), m of them for each shot.

    With d the product q s of a location and its nearest, and p that of their norms: the derivative of
    d / (p + eps) with respect to q is s / (p + eps) - d |s| / (p + eps)^2 q / |q|, and likewise for s.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, rows: Tensor, counts: list[int]) -> Tensor:
        shots, norms = rows.split(counts), query.norm(dim=1)
        k = len(shots) // len(query)
        best, nearest = [], []
        for i, shot in enumerate(shots):
            similar, at = (F.normalize(shot, dim=1) @ query[i // k]).max(0)  # (n,) both
            lengths = shot.norm(dim=1)[at]
            best.append(similar * lengths / (lengths * norms[i // k] + COSINE_EPS))
            nearest.append(at)
        found = torch.stack(best)
        ctx.save_for_backward(query, rows, found, torch.stack(nearest))
        ctx.counts = counts
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, rows, best, nearest = ctx.saved_tensors
        k = len(best) // len(query)
        of_query, of_rows = torch.zeros_like(query), torch.zeros_like(rows)
        norms = query.norm(dim=1)
        for i, (shot, of_shot) in enumerate(zip(rows.split(ctx.counts), of_rows.split(ctx.counts), strict=True)):
            q, of_q = query[i // k].T, of_query[i // k].T  # (n, C) both
            q_norm, s_norm, at = norms[i // k], shot.norm(dim=1), nearest[i]
            a = gradient[i] / (s_norm[at] * q_norm + COSINE_EPS)  # of the product
            of_norms = a * best[i]  # of the product of norms, negative
            of_q.addcmul_(shot[at], a[:, None])
            of_q.addcmul_(q, _ratio(of_norms * s_norm[at], q_norm)[:, None], value=-1)
            of_shot.index_add_(0, at, q * a[:, None])
            of_s_norm = torch.zeros_like(s_norm).index_add_(0, at, of_norms * q_norm)
            of_shot.addcmul_(shot, _ratio(of_s_norm, s_norm)[:, None], value=-1)
        return of_query, of_rows, None


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is: a norm of zeros has no direction."""
    return torch.where(b > 0, a / b, 0)


def _largest(query: Tensor, norms: Tensor, support: Tensor) -> Tensor:
    """Best cosines (B, n) of a query (B, C, n), its norms (B, 1, n) and a support (B, C, n') by all of them."""
    s = support.transpose(1, 2)  # (B, n', C)
    lengths = s.norm(dim=2, keepdim=True)
    if has_contents(s) and len(s) == 1:
        chosen = _object(lengths[0, :, 0])
        s, lengths = s[:, chosen], lengths[:, chosen]
    return (s @ query).div_((lengths @ norms).add_(COSINE_EPS)).amax(dim=1)


def _of_nearest(query: Tensor, support: Tensor) -> Tensor:
    """The same for a compiler: the nearest location is found without gradients, and one cosine taken with them."""
    b, n = len(support), support.shape[2]
    s = support.transpose(1, 2)  # (B, n', C)
    nearest = (F.normalize(s.detach(), dim=2) @ query.detach()).argmax(1)  # (B, n)
    of_batch = n * torch.arange(b, device=s.device)[:, None]
    s = (
        s.flatten(0, 1).index_select(0, (nearest + of_batch).flatten()).unflatten(0, (b, -1))
    )  # gather would keep s
    return (s * query.mT).sum(2) / (s.norm(dim=2) * query.norm(dim=1) + COSINE_EPS)


def _object(lengths: Tensor) -> Tensor:
    """Which locations of a support matter, by their norms (n',): (n',), the object and one other.

    All others are zero, and so is their similarity to everything.
    """
    outside = lengths == 0
    return ~outside | (outside.cumsum(0) == 1)
