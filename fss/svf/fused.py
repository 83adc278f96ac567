"""Weights that are several matrices on top of each other, as the query, key and value projections of attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fss.svf.layers import SVD, exact_svd


def split_svd(parts: int, svd: SVD = exact_svd) -> SVD:
    """A factorisation that factors each of several matrices on its own.

    U is block-diagonal, V holds the parts' below one another, and S their values one part after another: still
    W = U diag(S) V, so that everything that takes a factored layer takes this one.

    Args:
        parts: Number of matrices P, of O / P rows each.
        svd: Factors each of them.

    Returns:
        A function from a weight (O, I, ...) to U (O, P R), S (P R,) and V (P R, I, ...), R singular values each.
        It raises ValueError where O is no multiple of P.
    """

    def factor(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if len(weight) % parts:
            raise ValueError(f"a weight of {len(weight)} rows is not {parts} matrices of equally many rows")
        U, S, V = zip(*map(svd, weight.chunk(parts)), strict=True)
        return torch.block_diag(*U), torch.cat(S), torch.cat(V)

    return factor


def qkv_parts(name: str, layer: nn.Module) -> int:
    """3 for a linear layer that holds the three projections of attention, by timm's name for it; otherwise 1."""
    fused = isinstance(layer, nn.Linear) and name.rpartition(".")[2] == "qkv" and layer.out_features % 3 == 0
    return 3 if fused else 1
