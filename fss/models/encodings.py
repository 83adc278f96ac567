"""What heads encode, put together and taken apart image by image.

`encode_support` and `encode_query` return tensors in any nesting of tuples, dicts and lists. Their leading
dimensions are the batch and, for supports, the shots, so that each image can be encoded once and combined with
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def join(encoded: Sequence[Any], dim: int) -> Any:
    """Concatenates the tensors of equally structured values; anything else is taken from the first value.

    Args:
        encoded: One or more.
        dim: 0 for a batch, 1 for shots.
    """
    if len(encoded) == 1:
        return encoded[0]
    return pytree.tree_map(
        lambda first, *others: _cat((first, *others), dim) if isinstance(first, Tensor) else first, *encoded
    )


def split(encoded: Any, n: int) -> list[Any]:
    """Reverses `join` along the batch; the results own their memory, so that each can be freed."""
    if n == 1:
        return [encoded]

    def part(i: int) -> Any:
        return pytree.tree_map_only(Tensor, lambda tensor: tensor[i : i + 1].clone(), encoded)

    return [part(i) for i in range(n)]


def _cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenates; maps of shots (B, K, C, h, w) keep their channels last, where torch would turn them."""
    if tensors[0].dim() == 5 and dim < 2:
        last = [tensor.movedim(2, -1) for tensor in tensors]
        if all(tensor.is_contiguous() for tensor in last):
            return torch.cat(last, dim).movedim(-1, 2)
    return torch.cat(list(tensors), dim)
