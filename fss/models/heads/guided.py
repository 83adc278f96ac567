"""Upsampling of scores to the edges of a picture: the guided filter (He et al., TPAMI 2013), in its fast form.

Around each location, the scores are fitted by a linear function of the picture's colours, at the scores' own
resolution; the functions, not the scores, are then upsampled and applied to every pixel (He and Sun,
arXiv:1505.00996). The result is averaged over windows about as large as a location, since scores know nothing of
smaller things: in clutter, single pixels would be answered by their colours alone.

Shapes: B batch, S image side, h w height and width of the scores.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.resize import resize

EPS = 1e-3  # variance of a normalised picture's colours that counts as no edge


def guided_upsampling(scores: Tensor, picture: Tensor, radius: int) -> Tensor:
    """Scores (B, 1, S, S) that follow the edges of the picture.

    Args:
        scores: (B, 1, h, w).
        picture: (B, 3, S, S), normalised.
        radius: Of the square windows in which functions are fitted, in locations of the scores.
    """
    colours = _opponent(picture)
    coarse = F.interpolate(colours, size=scores.shape[-2:], mode="area")  # (B, 3, h, w)
    mean, level = _box(coarse, radius), _box(scores, radius)
    turned, mean_turned = coarse.roll(-1, 1), mean.roll(-1, 1)
    x, y, z = (_box(coarse * scores, radius) - mean * level).split(1, 1)  # covariances with the scores
    xx, yy, zz = (_box(coarse**2, radius) - mean**2 + EPS).split(1, 1)  # and of colours
    xy, yz, zx = (_box(coarse * turned, radius) - mean * mean_turned).split(1, 1)
    # Cramer's rule for the symmetric matrix of 3 x 3
    a, b, c = yy * zz - yz**2, yz * zx - xy * zz, xy * yz - zx * yy
    d, e, f = xx * zz - zx**2, xy * zx - xx * yz, xx * yy - xy**2
    slope = torch.cat([a * x + b * y + c * z, b * x + d * y + e * z, c * x + e * y + f * z], 1)
    slope = slope / (xx * a + xy * b + zx * c)  # (B, 3, h, w)
    offset = level - (slope * mean).sum(1, keepdim=True)
    size = (picture.shape[-2], picture.shape[-1])
    slope, offset = (resize(_box(maps, radius), size) for maps in (slope, offset))
    found = (slope * colours).sum(1, keepdim=True) + offset
    return _box(found, size[1] // scores.shape[-1] // 2)


def _opponent(picture: Tensor) -> Tensor:
    """Colours (B, 3, S, S) turned to grey, red against green, and both against blue.

    A turn changes no result, but a grey picture would make the covariances of red, green and blue singular but for
    `EPS`, beyond what float32 can solve.
    """
    red, green, blue = picture.split(1, 1)
    grey, warm, cold = red + green + blue, red - green, red + green - 2 * blue
    return torch.cat([grey / math.sqrt(3), warm / math.sqrt(2), cold / math.sqrt(6)], 1)


def _box(maps: Tensor, radius: int) -> Tensor:
    """Means over square windows, of what of them lies within the map."""
    return F.avg_pool2d(maps, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
