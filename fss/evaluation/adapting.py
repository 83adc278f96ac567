"""Evaluation that tunes S on the supports of each episode before it answers.

Every episode has a backbone of its own, so no encoding is shared between episodes, and S is put back after each.
The views that tuning sees follow from the episode's seed and id, so that results depend neither on the order of
episodes nor on the number of processes.

Shapes: K shots, S image side, h w original height and width.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fss.data.episodes import stack_pictures
from fss.data.plan import Picture, PictureSteps, Step
from fss.evaluation.reuse import Outcome
from fss.models.adaptation import Adaptation, SupportTuning
from fss.models.encodings import join
from fss.models.heads import Prediction
from fss.models.segmenter import FewShotSegmenter

_STREAM = 1  # of random numbers; an episode itself is drawn from the one without a number


class Cost(NamedTuple):
    """Seconds of some episodes, as one process spent them.

    Attributes:
        episodes: How many.
        tuning: Seconds of tuning.
        answering: Seconds of everything else.
    """

    episodes: int = 0
    tuning: float = 0.0
    answering: float = 0.0


class AdaptingEvaluator:
    """Predicts episodes in blocks of steps like `ReusingEvaluator`, each after tuning on its supports.

    Where tuning does not help what is held out, the answer is that of the segmenter as it is, to the bit.

    Args:
        segmenter: The segmenter, in eval mode and on its device; left as it is.
        pictures: Reader of the blocks' pictures.
        blocks: Steps, grouped into blocks.
        own_class: Position of each base class among the base classes; classes not listed are novel.
        settings: How S is tuned.

    Attributes:
        cost: Of the episodes so far.

    Raises:
        ValueError: The backbone has no singular values to tune.
    """

    def __init__(
        self,
        segmenter: FewShotSegmenter,
        pictures: PictureSteps,
        blocks: Sequence[Sequence[Step]],
        own_class: Mapping[int, int],
        settings: Adaptation,
    ) -> None:
        self.segmenter, self.pictures, self.blocks, self.own_class = segmenter, pictures, blocks, own_class
        self.tuning = SupportTuning(segmenter, settings)
        self.cost = Cost()

    def answer(self, block: int, arrived: Sequence[Picture]) -> Iterator[Outcome]:
        """Predicts the episodes of one block.

        Args:
            block: Number of the block.
            arrived: The pictures that no earlier block has used; earlier ones are read again, which takes no time
                beside tuning.
        """
        here = {picture.number: picture for picture in arrived}
        for episode in chain.from_iterable(self.blocks[block]):
            query, *shots = (here.get(n) or self.pictures.picture(n) for n in (episode.query, *episode.supports))
            began = time.perf_counter()
            supports = stack_pictures([shot.image for shot in shots])
            masks = torch.stack([shot.masks[episode.class_id] for shot in shots])
            own_class = torch.tensor([self.own_class.get(episode.class_id, -1)])
            used, steps = segmenter_for(
                self.segmenter, self.tuning, supports, masks, own_class, views_seed(episode.seed, episode.id)
            )
            tuned = time.perf_counter()
            prediction = _predict(used, query.image, supports, masks, own_class)
            self.tuning.reset()
            yield Outcome(episode, prediction, query.labels[episode.class_id], steps)
            # whoever asked has waited for the answer by now
            done = time.perf_counter()
            episodes, tuning, answering = self.cost
            self.cost = Cost(episodes + 1, tuning + tuned - began, answering + done - tuned)


def views_seed(seed: int, episode_id: int) -> int:
    """Seed of the views that tuning for an episode sees."""
    return int(np.random.default_rng([seed, episode_id, _STREAM]).integers(2**62))


def segmenter_for(
    segmenter: FewShotSegmenter,
    tuning: SupportTuning,
    supports: Tensor,
    masks: Tensor,
    own_class: Tensor,
    seed: int,
) -> tuple[FewShotSegmenter, int]:
    """The segmenter that answers an episode, until `tuning` is reset: the tuned one, or the one as it is.

    Args:
        segmenter: As it is.
        tuning: Of a copy of it.
        supports: (K, 3, S, S), RGB in 0..255.
        masks: (K, S, S).
        own_class: (1,); see `Head.decode`.
        seed: Of the views.

    Returns:
        The segmenter, and by how many steps it was tuned.
    """
    steps = tuning.fit(supports, masks, own_class, seed).steps
    return (tuning.segmenter if steps else segmenter), steps


def _predict(
    segmenter: FewShotSegmenter, query: Tensor, supports: Tensor, masks: Tensor, own_class: Tensor
) -> Prediction:
    """Encodes pictures one at a time, as `ReusingEvaluator` does, and decodes the query (3, S, S)."""
    device, normalize = segmenter.backbone.mean.device, segmenter.backbone.normalize
    image = normalize(query[None].to(device))
    encoded = segmenter.encode_query(image, segmenter.lower(image))
    shots = []
    for support, mask in zip(supports, masks, strict=True):
        shown = normalize(support[None].to(device))
        shots.append(segmenter.encode_support(shown[:, None], mask[None, None].to(device), segmenter.lower(shown)))
    size = (query.shape[-2], query.shape[-1])
    return segmenter.decode(encoded, join(shots, dim=1), size, own_class.to(device))
