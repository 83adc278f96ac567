"""Losses that few-shot heads and the base learner share.

Shapes: B batch, C classes, S image side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fss import processes
from fss.labels import IGNORE


def cross_entropy(logits: Tensor, mask: Tensor, class_weights: Tensor | None) -> Tensor:
    """Mean cross-entropy over the pixels of (B, C, S, S) that are not ignored, in float32 at least.

    In training on several processes the mean is over the pixels of all of them, whose numbers differ: each process
    gets its part, scaled so that the mean of the parts, which is what their gradients are averaged to, is the
    loss of the whole batch.
    """
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    labels = mask.long()
    if processes.count() == 1 or not torch.is_grad_enabled():
        return F.cross_entropy(logits, labels, class_weights, ignore_index=IGNORE)
    counted = labels != IGNORE
    weights = class_weights[labels * counted] if class_weights is not None else logits.new_ones(())
    summed = F.cross_entropy(logits, labels, class_weights, ignore_index=IGNORE, reduction="sum")
    return summed / processes.mean((weights * counted).sum())
