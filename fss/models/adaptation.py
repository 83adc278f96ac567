"""Tunes the singular values of a backbone on the supports of a class, and says whether that helps.

What a handful of pictures teaches may well be wrong. So every support is once held out: S is tuned on the others,
and after every few steps the held-out one is looked for. The number of steps that is best for those held out is
taken, and 0 is one of the candidates. Of a single support, views that tuning has not seen are held out.

Sun et al., "Singular Value Fine-tuning", NeurIPS 2022, tune S on base classes; here, on the supports alone.

Shapes: K supports, S side of the square.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fss.labels import IGNORE
from fss.models.heads import Head
from fss.models.losses import mean_cross_entropy
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf
from fss.models.views import Support, view_of

VIEWS = 4  # of a single support that are held out


@dataclass(frozen=True)
class Adaptation:
    """How S is tuned on supports.

    Attributes:
        steps: At most; a multiple of `every`.
        every: Steps between two looks at what is held out.
        rate: Learning rate of S, as a fraction of each singular value.
        shots: Supports of a step, at most; None for all that are there.
        views: Whether steps see augmented views, see `view_of`; without, three supports are needed.

    Raises:
        ValueError: A number is out of range.
    """

    steps: int
    every: int
    rate: float
    shots: int | None = None
    views: bool = False

    def __post_init__(self) -> None:
        if self.every < 1 or self.steps < 1 or self.steps % self.every:
            raise ValueError(
                f"adaptation.steps={self.steps} adaptation.every={self.every}: steps must be a multiple of every, "
                "and both at least 1"
            )
        if not 0 < self.rate < 1:
            raise ValueError(
                f"adaptation.rate={self.rate}: must be between 0 and 1, a fraction of singular values"
            )
        if self.shots is not None and self.shots < 1:
            raise ValueError(f"adaptation.shots={self.shots}: must be at least 1, or null for all supports")

    def check_shot(self, head: Head, shot: int) -> None:
        """Checks that a head can be tuned on so many supports.

        Raises:
            ValueError: There are too few to hold one out, or the head is made for another number than is left.
        """
        fewest = 1 if self.views else 3
        if shot < fewest:
            raise ValueError(f"tuning on supports needs {fewest} supports, not {shot}: one of them is held out")
        left = max(1, shot - 1)
        for shots in sorted({left, self.shots_of_a_step(left), self.shots_of_a_step(shot)}):
            head.check_shot(shots)

    def shots_of_a_step(self, supports: int) -> int:
        """Supports in a step, besides the one that is its query; a single one is both."""
        others = max(1, supports - 1)
        return others if self.shots is None else min(others, self.shots)


class Adapted(NamedTuple):
    """What became of it.

    Attributes:
        steps: Steps that were best for what was held out; 0 if none were.
        before: Mean IoU of what was held out without tuning, in 0..1.
        after: The same after `steps`.
    """

    steps: int
    before: float
    after: float


class SupportTuning:
    """A copy of a segmenter whose S is tuned on the supports of one class after another.

    Args:
        segmenter: The model with plain layers, in eval mode; left as it is.
        settings: How.

    Attributes:
        segmenter: The copy; its S is what `fit` has left, or `reset` has put back.

    Raises:
        ValueError: The backbone has no weights that can be factored.
    """

    def __init__(self, segmenter: FewShotSegmenter, settings: Adaptation) -> None:
        self.settings = settings
        with torch.inference_mode(False):
            self.segmenter = copy.deepcopy(segmenter).requires_grad_(False)
            try:
                self.segmenter.tune(svf)
            except ValueError as error:
                raise ValueError(f"this backbone has no singular values to tune on supports: {error}") from error
            self.segmenter.eval()
            values = [parameter for parameter in self.segmenter.parameters() if parameter.requires_grad]
            self._start = [(parameter, parameter.detach().clone()) for parameter in values]

    @torch.no_grad()
    def reset(self) -> None:
        """Puts S back to the bit."""
        for parameter, start in self._start:
            parameter.copy_(start)

    def fit(self, images: Tensor, masks: Tensor, own_class: Tensor | None = None, seed: int = 0) -> Adapted:
        """Tunes S for a class, from where it was at first, by as many steps as help what is held out.

        Where it is called does not matter, not even `torch.inference_mode`; it runs in the weights' own precision.

        Args:
            images: Supports (K, 3, S, S), RGB in 0..255.
            masks: (K, S, S) uint8: 1 object, 0 background, 255 ignored.
            own_class: (1,); see `Head.decode`.
            seed: Of the views.
        """
        device = self.segmenter.backbone.mean.device
        self.settings.check_shot(self.segmenter.head, len(images))
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            # what was made in inference mode cannot take part in gradients
            shown = [
                Support(*(part.to(device).clone() for part in one)) for one in zip(images, masks, strict=True)
            ]
            class_ = None if own_class is None else own_class.to(device).clone()
            chance = torch.Generator().manual_seed(seed)
            curves = torch.tensor([self._curve(*case, class_, chance) for case in self._held_out(shown, chance)])
            means = curves.mean(0)
            best = int(means.argmax())  # the first of equals: the fewest steps
            self.reset()
            steps = self._steps(shown, class_, chance)
            for _ in range(best * self.settings.every):
                next(steps)
        return Adapted(best * self.settings.every, float(means[0]), float(means[best]))

    def _held_out(
        self, shown: Sequence[Support], chance: torch.Generator
    ) -> Iterator[tuple[list[Support], list[Support]]]:
        """What S is tuned on, and the queries that are held out from it."""
        if len(shown) == 1:
            yield [*shown], [view_of(shown[0], chance) for _ in range(VIEWS)]
            return
        for number, query in enumerate(shown):
            yield [*shown[:number], *shown[number + 1 :]], [query]

    def _curve(
        self, shown: list[Support], queries: list[Support], own_class: Tensor | None, chance: torch.Generator
    ) -> list[float]:
        """Mean IoU of queries, for all supports, before tuning and after every few steps of it."""
        self.reset()
        steps = self._steps(shown, own_class, chance)
        curve = [self._iou(queries, shown, own_class)]
        for number in range(1, self.settings.steps + 1):
            next(steps)
            if number % self.settings.every == 0:
                curve.append(self._iou(queries, shown, own_class))
        return curve

    def _steps(self, shown: list[Support], own_class: Tensor | None, chance: torch.Generator) -> Iterator[None]:
        """Tunes S without end, a step at a time; each support in turn is the query of others."""
        # singular values differ by orders of magnitude, so each is tuned by a factor
        factors = [torch.zeros_like(start, requires_grad=True) for _, start in self._start]
        optimizer = torch.optim.Adam(factors, lr=self.settings.rate)
        number = 0
        while True:
            turn = [*shown[number % len(shown) :], *shown[: number % len(shown)]]
            query, others = turn[0], turn[1 : 1 + self.settings.shots_of_a_step(len(shown))] or turn
            number += 1
            if self.settings.views:
                query, *others = (view_of(one, chance) for one in (query, *others))
            # this process's own loss: each of several tunes on other episodes
            loss = mean_cross_entropy(self._logits(query, others, own_class), query.mask[None])
            gradients = torch.autograd.grad(loss, [p for p, _ in self._start], allow_unused=True)
            for factor, (_, start), gradient in zip(factors, self._start, gradients, strict=True):
                factor.grad = torch.zeros_like(factor) if gradient is None else gradient * start
            optimizer.step()
            with torch.no_grad():
                for factor, (parameter, start) in zip(factors, self._start, strict=True):
                    parameter.copy_(start * (1 + factor))
            yield

    @torch.no_grad()
    def _iou(self, queries: Sequence[Support], supports: Sequence[Support], own_class: Tensor | None) -> float:
        """Mean IoU of the queries' objects, in 0..1."""
        found = []
        for query in queries:
            answered = self._logits(query, supports, own_class)[0].argmax(0) == 1
            counted, there = query.mask != IGNORE, query.mask == 1
            union = ((answered | there) & counted).sum()
            found.append(float((answered & there).sum() / union.clamp(min=1)))
        return sum(found) / len(found)

    def _logits(self, query: Support, supports: Sequence[Support], own_class: Tensor | None) -> Tensor:
        normalize = self.segmenter.backbone.normalize
        images = normalize(torch.stack([one.image for one in supports]))[None]
        masks = torch.stack([one.mask for one in supports])[None]
        return self.segmenter(normalize(query.image[None]), images, masks, own_class).logits
