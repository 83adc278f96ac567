"""Augmented views of a picture as the network sees it: flipped, turned and scaled as in the published training.

Shapes: S side of the square.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import affine

from fss.labels import IGNORE

ANGLE = 10.0  # degrees, to both sides
SCALE = (0.8, 1.25)


class Support(NamedTuple):
    """One support as the network sees it; or a negative, which shows nothing of the class.

    Attributes:
        image: (3, S, S) float32 RGB in 0..255.
        mask: (S, S) uint8: 1 object, 0 background, 255 ignored or no picture.
    """

    image: Tensor
    mask: Tensor


def view_of(shown: Support, chance: torch.Generator) -> Support:
    """A random view; what it shows beyond the square is black and ignored. One that loses the object is not used.

    Args:
        shown: The picture, on any device.
        chance: On the CPU, so that views do not depend on the device.
    """
    flip, turn, zoom = torch.rand(3, generator=chance).tolist()
    image, mask = shown.image, shown.mask[None]
    if flip < 0.5:
        image, mask = image.flip(-1), mask.flip(-1)
    # given as keywords: the function has no defaults for them
    way = {"angle": ANGLE * (2 * turn - 1), "translate": [0, 0], "scale": SCALE[0] + (SCALE[1] - SCALE[0]) * zoom}
    image = affine(image, **way, shear=[0.0, 0.0], interpolation=InterpolationMode.BILINEAR, fill=0.0)
    mask = affine(mask, **way, shear=[0.0, 0.0], interpolation=InterpolationMode.NEAREST, fill=IGNORE)
    return Support(image, mask[0]) if bool((mask == 1).any()) else shown
