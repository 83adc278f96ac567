"""Convolutions with the frozen norms that follow them folded in, and ReLUs that keep a byte a number.

A frozen norm is a scale and a shift for each channel, which a convolution's weight can carry: one pass over
the maps less, and for SVF layers (`fss.svf`) one map less to keep for the way back. What is computed, the
parameters and their names stay the same.

Shapes: B batch, C channels, h w feature height and width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import resnet

from fss.svf import SVFConv2d


def convolve(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """A convolution and its batch norm, folded into one where the norm is frozen.

    Args:
        conv: `nn.Conv2d` padded by zeros, its SVF form, or anything else, which is then not folded.
        norm: A batch norm.
        x: (B, C, h, w).
    """
    foldable = isinstance(conv, SVFConv2d) or type(conv) is nn.Conv2d
    # exported graphs show the norm: their runtimes fold it once and for all
    if not foldable or not _is_frozen(norm) or torch.compiler.is_exporting():
        return norm(conv(x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # (C,)
    shift = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    if isinstance(conv, SVFConv2d):
        return conv(x, scale, shift)
    weight = conv.weight * scale[:, None, None, None]
    return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


def relu(x: Tensor) -> Tensor:
    """ReLU in place; its way back keeps one byte a number, where torch's keeps the number."""
    if torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling():
        result: Tensor = _ReLU.apply(x)  # type: ignore[no-untyped-call]
        return result
    return F.relu(x, inplace=True)


class ConvSequence(nn.Sequential):
    """A sequence of convolutions, norms, ReLUs and poolings; each norm follows a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self)
        for i, part in enumerate(parts):
            if i + 1 < len(parts) and isinstance(parts[i + 1], _BatchNorm):
                x = convolve(part, parts[i + 1], x)
            elif isinstance(part, nn.ReLU):
                x = relu(x)
            elif not isinstance(part, _BatchNorm):
                x = part(x)
        return x


class Bottleneck(resnet.Bottleneck):
    """torchvision's block of a ResNet-50 or deeper, computed by `convolve` and `relu`."""

    def forward(self, x: Tensor) -> Tensor:
        out = relu(convolve(self.conv1, self.bn1, x))
        out = relu(convolve(self.conv2, self.bn2, out))
        out = convolve(self.conv3, self.bn3, out)
        out += x if self.downsample is None else convolve(*self.downsample, x)
        return relu(out)


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x.relu_()
        ctx.mark_dirty(x)
        ctx.save_for_backward(x > 0)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return torch.where(positive, gradient, 0)


def _is_frozen(norm: nn.Module) -> bool:
    trained = torch.is_grad_enabled() and any(p.requires_grad for p in norm.parameters())
    return not norm.training and not trained
