"""Fine-tunes the singular values of a backbone on the supports of a class, and says whether that helps.

What a handful of pictures teaches may well be wrong. So every support is once held out: S is tuned on the others,
and after every few steps the held-out one is looked for. The number of steps that is best for those held out is
taken, and 0 is one of the candidates.

Sun et al., "Singular Value Fine-tuning", NeurIPS 2022, tune S on base classes; here, on the supports alone.

Shapes: S side of the square.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fss.models.losses import cross_entropy
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf
from fss.predictor.supports import Support
from fss.svf import merge

FEWEST = 3  # supports: one is held out, one is the query, one its support
STEPS, EVERY = 40, 5  # at most, and between two looks at what is held out
RATE = 5e-3  # learning rate of S, as a fraction of each singular value


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
    if len(supports) < FEWEST:
        raise ValueError(f"adapt=True needs {FEWEST} supports, not {len(supports)}: one of them is held out")
    for shots in (len(supports) - 2, len(supports) - 1):
        segmenter.head.check_shot(shots)
    curves = []
    for held_out, query in enumerate(supports):
        others = [support for number, support in enumerate(supports) if number != held_out]
        tuned = _Tuning(segmenter, others)
        curve = [tuned.iou(query)]
        for _ in range(STEPS // EVERY):
            tuned.train(EVERY)
            curve.append(tuned.iou(query))
        curves.append(curve)
    means = torch.tensor(curves).mean(0)
    best = int(means.argmax())  # the first of equals: the fewest steps
    before, after = float(means[0]), float(means[best])
    if best == 0:
        return Adapted(None, 0, before, after)
    tuned = _Tuning(segmenter, supports)
    tuned.train(best * EVERY)
    return Adapted(merge(tuned.segmenter).requires_grad_(False), best * EVERY, before, after)


class _Tuning:
    """A copy of a segmenter whose S is tuned; each support in turn is the query of the others."""

    def __init__(self, segmenter: FewShotSegmenter, supports: Sequence[Support]) -> None:
        self.segmenter = copy.deepcopy(segmenter).requires_grad_(False)
        self.segmenter.tune(svf)
        self.segmenter.eval()
        device = segmenter.backbone.mean.device
        self._supports = [Support(*(part.to(device) for part in support)) for support in supports]
        values = [(name, p) for name, p in self.segmenter.named_parameters() if p.requires_grad]
        # singular values differ by orders of magnitude, so each is tuned by a factor
        self._start = [(p, p.detach().clone()) for _, p in values]
        self._factors = [torch.zeros_like(p, requires_grad=True) for p, _ in self._start]
        self._optimizer = torch.optim.Adam(self._factors, lr=RATE)
        self._next = 0

    def train(self, steps: int) -> None:
        for _ in range(steps):
            query = self._supports[self._next % len(self._supports)]
            others = [one for one in self._supports if one is not query]
            self._next += 1
            loss = cross_entropy(self._logits(query, others), query.mask[None].to(query.image.device), None)
            gradients = torch.autograd.grad(loss, [p for p, _ in self._start], allow_unused=True)
            for factor, (_, start), gradient in zip(self._factors, self._start, gradients, strict=True):
                factor.grad = torch.zeros_like(factor) if gradient is None else gradient * start
            self._optimizer.step()
            with torch.no_grad():
                for factor, (parameter, start) in zip(self._factors, self._start, strict=True):
                    parameter.copy_(start * (1 + factor))

    @torch.no_grad()
    def iou(self, query: Support) -> float:
        """IoU of a query's object (S, S), for all supports, in 0..1."""
        query = Support(*(part.to(self._supports[0].image.device) for part in query))
        answered = self._logits(query, self._supports)[0].argmax(0) == 1
        counted, there = query.mask != 255, query.mask == 1
        union = ((answered | there) & counted).sum()
        return float((answered & there).sum() / union.clamp(min=1))

    def _logits(self, query: Support, supports: Sequence[Support]) -> Tensor:
        normalize = self.segmenter.backbone.normalize
        images = normalize(torch.stack([one.image for one in supports]))[None]
        masks = torch.stack([one.mask for one in supports])[None]
        return self.segmenter(normalize(query.image[None]), images, masks).logits
