"""Convolutions with the frozen norms that follow them folded in.

A frozen norm is a scale and a shift for each channel, which a convolution's weight can carry: one pass over
the maps less, and for SVF layers (`fss.svf`) one map less to keep for the way back. What is computed, the
parameters and their names stay the same.

Shapes: B batch, C channels, h w feature height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import resnet

from fss.margins import NONE, Margins, cut
from fss.models.backbones.relu import relu
from fss.svf import SVFConv2d


def convolve(conv: nn.Module, norm: _BatchNorm, x: Tensor, margins: Margins = NONE) -> Tensor:
    """A convolution and its batch norm, folded into one where the norm is frozen.

    Args:
        conv: `nn.Conv2d` padded by zeros, its SVF form, or anything else, which is then not folded.
        norm: What follows it.
        x: (B, C, h, w).
        margins: Of the output, to be left out; none wider than the padding, and only with a stride of 1.
    """
    # exported graphs show the norm: their runtimes fold it once and for all
    folds = isinstance(conv, SVFConv2d) or type(conv) is nn.Conv2d
    if not folds or not _is_frozen(norm) or torch.compiler.is_exporting():
        return cut(norm(conv(x)), margins)
    assert isinstance(conv, SVFConv2d | nn.Conv2d)
    scale, shift = _scale_and_shift(norm, conv.bias)
    padding: tuple[int, ...] | None = None  # the layer's own
    if any(margins):
        assert not isinstance(conv.padding, str)
        (rows, columns), padding = conv.padding, (0, 0)
        rest = [p - m for p, m in zip((columns, columns, rows, rows), margins, strict=True)]
        x = F.pad(x, rest) if any(rest) else x
    if isinstance(conv, SVFConv2d):
        return conv(x, scale, shift, padding)
    weight = conv.weight * scale[:, None, None, None]
    own = conv.padding if padding is None else padding
    return F.conv2d(x, weight, shift, conv.stride, own, conv.dilation, conv.groups)


class ConvSequence(nn.Sequential):
    """A sequence of convolutions, norms, ReLUs and poolings; each norm follows a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self)
        for i, part in enumerate(parts):
            following = parts[i + 1] if i + 1 < len(parts) else None
            if isinstance(following, _BatchNorm):
                x = convolve(part, following, x)
            elif isinstance(part, nn.ReLU):
                x = relu(x)
            elif not isinstance(part, _BatchNorm):
                x = part(x)
        return x


class Bottleneck(resnet.Bottleneck):
    """torchvision's block of a ResNet-50 or deeper, computed by `convolve` and `relu`."""

    def forward(self, x: Tensor, margins: Margins = NONE) -> Tensor:
        """As torchvision's; margins of the output are left out, none wider than the 3x3 convolution's padding."""
        out = relu(convolve(self.conv1, self.bn1, x))
        out = relu(convolve(self.conv2, self.bn2, out, margins))
        out = convolve(self.conv3, self.bn3, out)
        x = cut(x, margins)
        if self.downsample is not None:
            conv, norm = self.downsample
            x = convolve(conv, norm, x)
        out += x
        return relu(out)


def _scale_and_shift(norm: _BatchNorm, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """What a frozen norm after a bias does to each channel: two tensors (C,)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    mean = norm.running_mean if bias is None else norm.running_mean - bias
    return scale, norm.bias - mean * scale


def _is_frozen(norm: nn.Module) -> bool:
    trained = torch.is_grad_enabled() and any(p.requires_grad for p in norm.parameters())
    return not norm.training and not trained
