"""Upsampling of scores to the edges of a picture: the guided filter (He et al., TPAMI 2013), in its fast form.

Around each location, the scores are fitted by a linear function of the picture's colours, at the scores' own
resolution; the functions, not the scores, are then upsampled and applied to every pixel (He and Sun,
arXiv:1505.00996).

Shapes: B batch, S image side, h w height and width of the scores.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.resize import resize

EPS = 1e-3  # variance of a normalised picture's colours that counts as no edge


def checked_radius(refine: int) -> int:
    """`refine`, the setting of a head.

    Raises:
        ValueError: If it is below 0.
    """
    if refine < 0:
        raise ValueError(f"method.head.refine is {refine}, must be a number of locations, or 0 for none")
    return refine


def guided_upsampling(scores: Tensor, picture: Tensor, radius: int) -> Tensor:
    """Scores (B, 1, S, S) that follow the edges of the picture.

    Args:
        scores: (B, 1, h, w).
        picture: (B, 3, S, S), normalised.
        radius: Of the square windows in which functions are fitted, in locations of the scores.
    """
    colours = _opponent(picture)
    coarse = F.interpolate(colours, size=scores.shape[-2:], mode="area")  # (B, 3, h, w)
    mean, level = box_mean(coarse, radius), box_mean(scores, radius)
    turned, mean_turned = coarse.roll(-1, 1), mean.roll(-1, 1)
    x, y, z = (box_mean(coarse * scores, radius) - mean * level).split(1, 1)  # covariances with the scores
    xx, yy, zz = (box_mean(coarse**2, radius) - mean**2 + EPS).split(1, 1)  # and of colours
    xy, yz, zx = (box_mean(coarse * turned, radius) - mean * mean_turned).split(1, 1)
    # Cramer's rule for the symmetric matrix of 3 x 3
    a, b, c = yy * zz - yz**2, yz * zx - xy * zz, xy * yz - zx * yy
    d, e, f = xx * zz - zx**2, xy * zx - xx * yz, xx * yy - xy**2
    slope = torch.cat([a * x + b * y + c * z, b * x + d * y + e * z, c * x + e * y + f * z], 1)
    slope = slope / (xx * a + xy * b + zx * c)  # (B, 3, h, w)
    offset = level - (slope * mean).sum(1, keepdim=True)
    size = (picture.shape[-2], picture.shape[-1])
    slope, offset = (resize(box_mean(maps, radius), size) for maps in (slope, offset))
    return (slope * colours).sum(1, keepdim=True) + offset


def refined(scores: Tensor, picture: Tensor, radius: int) -> Tensor:
    """Guided upsampling, averaged over windows of a location's side.

    Scores know nothing smaller: single pixels of clutter would be answered by their colours alone.

    Args:
        scores: (B, 1, h, w).
        picture: (B, 3, S, S), normalised.
        radius: See `guided_upsampling`.
    """
    location = picture.shape[-1] // scores.shape[-1]  # its side in pixels
    return box_mean(guided_upsampling(scores, picture.float(), radius), location // 2)


def _opponent(picture: Tensor) -> Tensor:
    """Colours (B, 3, S, S) turned to grey, red against green, and both against blue.

    A turn changes no result, but a grey picture would make the covariances of red, green and blue singular but for
    `EPS`, beyond what float32 can solve.
    """
    red, green, blue = picture.split(1, 1)
    grey, warm, cold = red + green + blue, red - green, red + green - 2 * blue
    return torch.cat([grey / math.sqrt(3), warm / math.sqrt(2), cold / math.sqrt(6)], 1)


def box_mean(maps: Tensor, radius: int) -> Tensor:
    """Means (B, C, h, w) over square windows, of what of them lies within the map.

    Args:
        maps: (B, C, h, w).
        radius: How far windows reach to each side; 0 changes nothing.
    """
    radius = min(radius, max(maps.shape[-2:]))  # further out there is nothing
    return F.avg_pool2d(maps, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
