"""Answers episodes of several classes, or of classes that may be absent.

What is computed from one picture alone is kept for later episodes while memory allows (`fss.evaluation.reuse`),
with the same results.

Shapes: N classes asked for, K shots, C channels, S image side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from fss.data.loading import build_loader, evaluation_ids
from fss.data.plan import PlannedEpisode
from fss.data.sampler import EpisodeSampler
from fss.data.several_episodes import SeveralEpisode, SeveralEpisodes
from fss.evaluation.memory import Memory, Part
from fss.evaluation.reuse import uses_of
from fss.evaluation.several_scores import Answer, SeveralIoU
from fss.geometry import Geometry, at_original_size, fitted
from fss.labels import IGNORE
from fss.models import presence
from fss.models.answers import merge_classes
from fss.models.backbones import Lower
from fss.models.encodings import join
from fss.models.segmenter import FewShotSegmenter
from fss.models.verification import Case


class _Seen(NamedTuple):
    """A picture as the head sees it, and for the presence: features of a query (C, h, w), of an object (n, C)."""

    head: Any
    features: Tensor


class SeveralEvaluation(lightning.LightningModule):
    """Answers episodes of several classes, with and without abstention.

    Args:
        segmenter: The segmenter, SVF layers merged or not; its verifier tells how sure a presence is.
        episodes: The episodes.
        count: How many.
        threshold: Presence in 0..1 below which a class is taken to be absent; None only collects.
        num_workers: Loader processes.
        limit_gb: How much to keep, see `ReusingEvaluator`.

    Attributes:
        always: The scores of answers that never abstain.
        abstaining: Those of answers that do.
        answers: One for each class that was asked for, without abstention.
        cases: What each of them rests on; empty where there is a threshold already.
        objects: Class id and mean feature (C,) of every support; likewise.
    """

    def __init__(
        self,
        segmenter: FewShotSegmenter,
        episodes: SeveralEpisodes,
        count: int,
        threshold: float | None,
        num_workers: int,
        limit_gb: float,
    ) -> None:
        super().__init__()
        segmenter.head.check_shot(episodes.episodes.shot)
        self.segmenter, self.episodes, self.count = segmenter.eval(), episodes, count
        self.threshold, self.num_workers, self.limit_gb = threshold, num_workers, limit_gb
        self._drawn = [episodes.draw(number) for number in range(count)]
        known = sorted(episodes.episodes.pool.images_of)
        self.always, self.abstaining = SeveralIoU(known), SeveralIoU(known)
        self.answers: list[Answer] = []
        self.cases: list[Case] = []
        self.objects: list[tuple[int, Tensor]] = []

    def test_dataloader(self) -> DataLoader[SeveralEpisode]:
        ids = evaluation_ids(self.trainer, self.count)
        return self.loader(ids)

    def loader(self, ids: EpisodeSampler) -> DataLoader[SeveralEpisode]:
        """Episodes one by one."""
        return build_loader(self.episodes, ids, 1, self.num_workers, _only)

    def test_step(self, batch: SeveralEpisode, batch_idx: int) -> None:
        classes, query, label, supports, masks = batch
        drawn = self._drawn[batch_idx]
        geometry: Geometry = self.episodes.episodes.geometry
        margins, presences = [], []
        asked = self._kept(Part("query", drawn.query), self._query, drawn.query, query)
        height, width = label.shape
        rows, columns = fitted(height, width, query.shape[-1], geometry)
        for position, (class_id, shots, marks) in enumerate(zip(classes, supports, masks, strict=True), start=1):
            shown = [
                self._kept(Part("support", number, class_id), self._support, number, image, mask)
                for number, image, mask in zip(drawn.supports[class_id], shots, marks, strict=True)
            ]
            self._memory.advance()
            objects = [one.features for one in shown]
            logits = self._decode(asked, shown, query.shape[-1])
            foreground = torch.zeros_like(logits[0], dtype=torch.float32)
            foreground[:rows, :columns] = (logits[1] - logits[0])[:rows, :columns].float().sigmoid()
            presences.append(presence.presence(asked.features, objects, foreground, self.segmenter.verifier))
            logits = at_original_size(logits, height, width, geometry)
            margins.append(logits[1] - logits[0])
            counted, there = label != IGNORE, label == position
            answered = (margins[-1] > 0) & counted
            sums = ((answered & there).sum(), (answered | there).sum(), there.sum())
            self.answers.append(Answer(class_id, presences[-1], *(int(number) for number in sums)))
            if self.threshold is None:
                rests_on = presence.evidence(asked.features, objects, foreground)
                self.cases.append(Case(class_id, self.answers[-1].present, self.answers[-1].iou, rests_on))
                self.objects += [(class_id, F.normalize(one.mean(0), dim=0).cpu()) for one in objects]
        answers = torch.stack(margins)
        self.always.update(merge_classes(answers, [0.5] * len(classes)), label, classes)
        if self.threshold is not None:
            cuts = [0.5 if found >= self.threshold else 1.0 for found in presences]
            self.abstaining.update(merge_classes(answers, cuts), label, classes)

    @cached_property
    def _memory(self) -> Memory:
        steps = [
            [PlannedEpisode(class_id, query, 0, number, shots) for class_id, shots in supports.items()]
            for number, (query, supports) in enumerate(self._drawn)
        ]
        return Memory(uses_of([steps]), int(self.limit_gb * 1e9), self.device)

    def _kept(self, part: Part, make: Callable[..., Any], *given: Any) -> Any:
        """What is kept of a picture, or is now made."""
        if part in self._memory:
            return self._memory.get(part)
        made = make(*given)
        self._memory.put(part, made)
        return made

    def _lower(self, number: int, normalized: Tensor) -> Lower:
        return self._kept(Part("lower", number), self.segmenter.lower, normalized)

    def _query(self, number: int, image: Tensor) -> _Seen:
        normalized = self._normalized(image[None])
        lower = self._lower(number, normalized)
        return _Seen(self.segmenter.encode_query(normalized, lower), presence.locations(lower)[0])

    def _support(self, number: int, image: Tensor, mask: Tensor) -> _Seen:
        normalized = self._normalized(image[None])
        lower = self._lower(number, normalized)
        encoded = self.segmenter.encode_support(normalized[:, None], mask[None, None], lower)
        return _Seen(encoded, presence.of_object(presence.locations(lower)[0], mask))

    def _decode(self, query: _Seen, shown: list[_Seen], size: int) -> Tensor:
        """Logits (2, S, S) for the supports of a class."""
        novel = torch.tensor([-1], device=query.features.device)
        supports = join([one.head for one in shown], dim=1)
        return self.segmenter.decode(query.head, supports, (size, size), novel).logits[0]

    def _normalized(self, images: Tensor) -> Tensor:
        return self.segmenter.backbone.normalize(images)


def _only(batch: list[SeveralEpisode]) -> SeveralEpisode:
    return batch[0]
