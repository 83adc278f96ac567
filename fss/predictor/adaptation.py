"""`fit(..., adapt=True)`: singular values of the backbone tuned on the supports, if that helps those held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from fss.models.adaptation import Adaptation, SupportTuning
from fss.models.segmenter import FewShotSegmenter
from fss.predictor.supports import Support
from fss.svf import merge

SETTINGS = Adaptation(steps=40, every=5, rate=5e-3)


class Adapted(NamedTuple):
    """What became of it.

    Attributes:
        segmenter: The tuned model with plain layers; None if tuning did not help.
        steps: Steps that were best for the supports that were held out; 0 if none were.
        before: Mean IoU of the held-out supports without tuning, in 0..1.
        after: The same after `steps`.
    """

    segmenter: FewShotSegmenter | None
    steps: int
    before: float
    after: float


def adapt(segmenter: FewShotSegmenter, supports: Sequence[Support]) -> Adapted:
    """Tunes a copy of a segmenter on three or more supports.

    Args:
        segmenter: The model with plain layers, in eval mode; left as it is.
        supports: Of one class.

    Raises:
        ValueError: There are fewer supports, or the head needs a fixed number of them.
    """
    SETTINGS.check_shot(segmenter.head, len(supports))  # before weights are factored
    tuning = SupportTuning(segmenter, SETTINGS)
    images, masks = (torch.stack(part) for part in zip(*supports, strict=True))
    done = tuning.fit(images, masks)
    kept = merge(tuning.segmenter).requires_grad_(False) if done.steps else None
    return Adapted(kept, *done)
