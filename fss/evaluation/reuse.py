"""Evaluation that encodes each picture once and decodes it many times, with the same results.

The encoding of a query depends only on its picture, that of a support on its picture and class. Both are computed
from the picture's lower features. These parts are kept as long as later episodes need them and memory allows;
a part that was dropped is computed again. Memory therefore affects the duration of an evaluation but never its
results: pictures are encoded one at a time, so no kernel depends on the others (unless `batch` is raised).

Shapes: K shots, S image side, h w original height and width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fss.data.episodes import stack_pictures
from fss.data.plan import Picture, PictureSteps, PlannedEpisode, Step
from fss.evaluation.memory import Memory, Part
from fss.models.encodings import join, split
from fss.models.heads import Prediction
from fss.models.segmenter import FewShotSegmenter


class Reuse(NamedTuple):
    """Settings for encoding pictures; see `ReusingEvaluator`."""

    limit_gb: float
    batch: int = 1


class Outcome(NamedTuple):
    """An episode, its prediction (B = 1), and its ground truth (h, w) at original size.

    `steps` are those by which S was tuned for it; 0 without such tuning.
    """

    episode: PlannedEpisode
    prediction: Prediction
    label: Tensor
    steps: int = 0


class ReusingEvaluator:
    """Predicts episodes in blocks of steps, one block after another.

    Args:
        segmenter: The segmenter, in eval mode and on its device.
        pictures: Reader of the blocks' pictures.
        blocks: Steps, grouped into blocks.
        own_class: Position of each base class among the base classes; classes not listed are novel.
        limit_gb: How much to keep, in GB (1e9 bytes) of device memory and, separately, of host memory.
        batch: Number of pictures encoded at once. 1 is exact; larger values are faster on some devices and change
            results by rounding.

    Raises:
        ValueError: If the limit is below 0 or the batch below 1.
    """

    def __init__(
        self,
        segmenter: FewShotSegmenter,
        pictures: PictureSteps,
        blocks: Sequence[Sequence[Step]],
        own_class: Mapping[int, int],
        limit_gb: float,
        batch: int = 1,
    ) -> None:
        check_reuse(limit_gb, batch)
        self.segmenter, self.pictures, self.blocks, self.own_class = segmenter, pictures, blocks, own_class
        self.batch = batch
        self.encoded: dict[str, int] = {"lower": 0, "query": 0, "support": 0}  # how often each kind was computed
        self._device = segmenter.backbone.mean.device
        self._memory = Memory(uses_of(blocks), int(limit_gb * 1e9), self._device)
        self._arrived: dict[int, Picture] = {}

    def answer(self, block: int, arrived: Sequence[Picture]) -> Iterator[Outcome]:
        """Predicts the episodes of one block; blocks must be processed in order.

        Args:
            block: Number of the block.
            arrived: The pictures that no earlier block has used.
        """
        self._arrived = {picture.number: picture for picture in arrived}
        for picture in arrived:
            self._memory.put(Part("picture", picture.number), picture)
        steps = self.blocks[block]
        ahead = [support for step in steps for episode in step for support in _supports(episode)]
        queries = [Part("query", step[0].query) for step in steps]
        for i, step in enumerate(steps):
            [query] = self._parts(queries[i : i + 1], queries[i + 1 :])
            for episode in step:
                supports = self._parts(_supports(episode), ahead)
                del ahead[: len(supports)]
                yield self._decode(episode, query, supports)
                self._memory.advance()
        self._arrived = {}

    def _decode(self, episode: PlannedEpisode, query: Any, supports: Sequence[Any]) -> Outcome:
        picture = self._picture(episode.query)
        own_class = torch.tensor([self.own_class.get(episode.class_id, -1)], device=self._device)
        size = (picture.image.shape[-2], picture.image.shape[-1])
        prediction = self.segmenter.decode(query, join(supports, dim=1), size, own_class)
        return Outcome(episode, prediction, picture.labels[episode.class_id])

    def _parts(self, wanted: Sequence[Part], ahead: Iterable[Part] = ()) -> list[Any]:
        """Returns parts of one kind, stored or computed; upcoming parts are computed too, to fill a batch."""
        found = {part: self._memory.get(part) for part in wanted if part in self._memory}
        missing = [part for part in dict.fromkeys(wanted) if part not in found]
        more = dict.fromkeys(part for part in ahead if part not in wanted and part not in self._memory)
        missing += islice(more, -len(missing) % self.batch)
        for start in range(0, len(missing), self.batch):
            made = missing[start : start + self.batch]
            for part, value in zip(made, self._encode(made), strict=True):
                self._memory.put(part, value)
                found[part] = value
        return [found[part] for part in wanted]

    def _encode(self, parts: Sequence[Part]) -> list[Any]:
        kind = parts[0].kind
        self.encoded[kind] += len(parts)
        pictures = [self._picture(part.number) for part in parts]
        images = self.segmenter.backbone.normalize(stack_pictures([p.image for p in pictures]).to(self._device))
        if kind == "lower":
            return split(self.segmenter.lower(images), len(parts))
        lower = join(self._parts([Part("lower", part.number) for part in parts]), dim=0)
        if kind == "query":
            return split(self.segmenter.encode_query(images, lower), len(parts))
        masks = [picture.masks[part.class_id] for picture, part in zip(pictures, parts, strict=True)]
        one_shot = torch.stack(masks).to(self._device)[:, None]  # (B, 1, S, S)
        return split(self.segmenter.encode_support(images[:, None], one_shot, lower), len(parts))

    def _picture(self, number: int) -> Picture:
        if number in self._arrived:
            return self._arrived[number]
        if (part := Part("picture", number)) in self._memory:
            return self._memory.get(part)
        picture = self._arrived[number] = self.pictures.picture(
            number
        )  # dropped: reading it again is slow, but right
        return picture


def own_classes(base_classes: Sequence[int]) -> dict[int, int]:
    """Position of each base class among the base classes, from 0."""
    return {class_id: position for position, class_id in enumerate(base_classes)}


def check_reuse(limit_gb: float, batch: int) -> None:
    """Raises ValueError for settings out of range."""
    if limit_gb < 0:
        raise ValueError(f"reuse.limit_gb={limit_gb}: must be at least 0, which keeps nothing")
    if batch < 1:
        raise ValueError(f"reuse.batch={batch}: must be at least 1")


def _supports(episode: PlannedEpisode) -> list[Part]:
    return [Part("support", number, episode.class_id) for number in episode.supports]


def uses_of(blocks: Sequence[Sequence[Step]]) -> dict[Part, list[int]]:
    """When each part is used, as episode numbers.

    A query is used when its step begins, lower features when another part is first computed from them.
    """
    uses: dict[Part, list[int]] = {}

    def use(part: Part, time: int) -> None:
        times = uses.setdefault(part, [])
        if not times or times[-1] != time:
            times.append(time)

    time = 0
    for step in chain.from_iterable(blocks):
        for i, episode in enumerate(step):
            query = [Part("query", episode.query)] if i == 0 else []
            for part in (*query, *_supports(episode)):
                if part not in uses:
                    use(Part("lower", part.number), time)
                use(part, time)
            for number in (episode.query, *episode.supports):
                use(Part("picture", number), time)
            time += 1
    return uses
