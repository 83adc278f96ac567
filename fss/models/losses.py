"""Losses shared by the few-shot heads and the base learner.

Shapes: B batch, C classes, S image side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.labels import IGNORE
from fss.processes import group


def cross_entropy(logits: Tensor, mask: Tensor, class_weights: Tensor | None) -> Tensor:
    """Mean cross-entropy over all pixels that are not ignored, in float32 or higher precision.

    When several processes train together, the mean is taken over the pixels of all of them, whose number differs
    between processes. Each process returns its share, scaled so that averaging over the processes (as is done with
    their gradients) gives the loss of the whole batch. A batch whose pixels are all ignored contributes
    nothing: its loss is 0.

    Args:
        logits: (B, C, S, S).
        mask: (B, S, S) class labels; 255 is ignored.
        class_weights: (C,) weights of the classes, or None for equal weights.
    """
    if group.count() == 1 or not torch.is_grad_enabled():
        return mean_cross_entropy(logits, mask, class_weights)
    logits, labels = _wide(logits), mask.long()
    counted = labels != IGNORE
    weights = class_weights[labels * counted] if class_weights is not None else logits.new_ones(())
    summed = F.cross_entropy(logits, labels, class_weights, ignore_index=IGNORE, reduction="sum")
    total = group.mean((weights * counted).sum())
    return summed / torch.where(total > 0, total, torch.ones_like(total))


def mean_cross_entropy(logits: Tensor, mask: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """`cross_entropy` of this process's pixels alone, whatever others do."""
    labels = mask.long()
    mean = F.cross_entropy(_wide(logits), labels, class_weights, ignore_index=IGNORE)
    return torch.where((labels != IGNORE).any(), mean, torch.zeros_like(mean))


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype.itemsize < 4 else logits
