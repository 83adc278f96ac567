"""Whether an exported model answers as the model does, in numbers and in masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fss.export.graphs import Example, example
from fss.models.segmenter import FewShotSegmenter

Answer = Callable[[Example], Tensor]  # logits (B, 2, S, S)
LARGEST = 1e-3  # difference of logits, as a fraction of the largest, that rounding alone does not make


class Agreement(NamedTuple):
    """Comparison of two answers to the same queries.

    Attributes:
        difference: Largest difference of logits.
        relative: The same as a fraction of the largest logit.
        flipped: Pixels whose label differs.
        pixels: All pixels.
    """

    difference: float
    relative: float
    flipped: int
    pixels: int


@torch.inference_mode()
def agreement(
    segmenter: FewShotSegmenter, exported: FewShotSegmenter, size: int, shot: int, any_shot: bool
) -> Agreement:
    """Compares an exported model with the model it was made of, on pictures of noise with an object.

    Args:
        segmenter: The model.
        exported: The exported one.
        size: Side of the pictures.
        shot: Supports of the model.
        any_shot: Whether it is to be compared with other numbers of supports too.
    """
    difference, largest, flipped, pixels = 0.0, 0.0, 0, 0
    for batch, k in {(1, shot), (2, shot), (1, shot + 1 if any_shot else shot)}:
        given = example(size, k, batch)
        ours, theirs = (_logits(model, given) for model in (segmenter, exported))
        difference = max(difference, float((ours - theirs).abs().max()))
        largest = max(largest, float(ours.abs().max()))
        flipped += int((ours.argmax(1) != theirs.argmax(1)).sum())
        pixels += ours[:, 0].numel()
    return Agreement(difference, difference / max(largest, 1e-9), flipped, pixels)


def _logits(model: FewShotSegmenter, given: Example) -> Tensor:
    normalize = model.backbone.normalize
    support = model.encode_support(normalize(given.images), given.masks)
    query = model.encode_query(normalize(given.queries))
    return model.decode(query, support, (given.queries.shape[-2], given.queries.shape[-1])).logits
