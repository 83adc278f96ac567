"""From the foreground logits of several classes to one label map.

Shapes: N classes, h w height and width of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def log_odds(probability: float) -> float:
    """The log-odds of a probability in 0..1, both ends included (minus and plus infinity)."""
    if probability in (0, 1):
        return math.copysign(math.inf, probability - 0.5)
    return math.log(probability / (1 - probability))


def merge_classes(margins: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Merges the answers of several classes: the most probable class of those above their thresholds.

    For a single class and a threshold of 0.5 this is exactly the argmax of background and foreground.

    Args:
        margins: Log-odds of the foreground of each class (N, h, w): foreground minus background logits.
        thresholds: N probabilities in 0..1 that a class must exceed; 1 leaves a class out.

    Returns:
        (h, w) int64: 0 background, else 1 + position of the class; of equally probable classes the first.
    """
    cuts = torch.tensor([log_odds(t) for t in thresholds], dtype=margins.dtype, device=margins.device)
    likely = margins.masked_fill(~(margins > cuts[:, None, None]), -math.inf)
    best, label = likely.max(0)
    return torch.where(best > -math.inf, label + 1, 0)
