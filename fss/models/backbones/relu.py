"""ReLU whose way back keeps one bit a number.

Its gradient depends only on which numbers are positive. torch keeps the numbers themselves, which are 32 times as
much; the convolutions of `fss.svf` do not need them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Eight bytes of 0 or 1, read as an int64: this product has them side by side in its highest byte.
_GATHER = 0x0102040810204080
# A byte in each of eight places, of which each keeps another bit; added to it, the last one carries every bit that
# is set to the top of its place.
_REPEAT, _ONE_EACH, _CARRY = 0x0101010101010101, 0x8040201008040201 - 2**64, 0x7F7F7F7F7F7F7F7F


def relu(x: Tensor) -> Tensor:
    """ReLU in place; its way back keeps one bit a number, where torch's keeps the number."""
    if torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling():
        result: Tensor = _ReLU.apply(x)
        return result
    return F.relu(x, inplace=True)


class Layout(NamedTuple):
    """How a tensor lies in memory.

    Attributes:
        order: Its dimensions, the slowest first.
        sizes: Of these.
    """

    order: list[int]
    sizes: list[int]


def pack(flags: Tensor) -> tuple[Tensor, Layout | None]:
    """Packs booleans into bits.

    The bits' memory is taken first, and nothing else is: many small tensors between large ones that come and go
    would keep a C library from using memory again.

    Args:
        flags: Booleans, whose memory is written over.

    Returns:
        Bytes (n / 8,) and what `unpack` needs to know; the flags themselves and None where their number n is not a
        multiple of eight, or they do not fill their memory.
    """
    order = sorted(range(flags.dim()), key=flags.stride, reverse=True)
    dense = flags.permute(order)
    if flags.numel() % 8 or not dense.is_contiguous():
        return flags, None
    bits = torch.empty(flags.numel() // 8, dtype=torch.uint8, device=flags.device)
    eights = dense.flatten().view(torch.int64)
    bits.copy_(eights.mul_(_GATHER).bitwise_right_shift_(56))
    return bits, Layout(order, list(dense.shape))


def unpack(bits: Tensor, layout: Layout | None) -> Tensor:
    """What `pack` was given, as bytes of 0 or 1 in the same memory format."""
    if layout is None:
        return bits.view(torch.uint8)
    eights = bits.long().mul_(_REPEAT).bitwise_and_(_ONE_EACH).add_(_CARRY).bitwise_right_shift_(7)
    flags = eights.bitwise_and_(_REPEAT).view(torch.uint8).view(layout.sizes)
    return flags.permute(*(layout.order.index(i) for i in range(len(layout.order))))


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x.relu_()
        ctx.mark_dirty(x)
        positive, ctx.layout = pack(x > 0)
        ctx.save_for_backward(positive)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        # a product with booleans is slower, `where` much; the first factor decides on the memory format
        return unpack(positive, ctx.layout) * gradient
