"""Counts the parameters of each part of a model, and how many of them are trained."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from fss.models.base_segmenter import BaseSegmenter
from fss.models.segmenter import FewShotSegmenter


class PartCount(NamedTuple):
    """Number of parameters of one part of a segmenter."""

    part: str
    trained: int
    all: int


def count_parameters(segmenter: FewShotSegmenter | BaseSegmenter) -> list[PartCount]:
    """Counts trained and all parameters of each backbone stage that has any, the base learner, and the head."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in segmenter.backbone.named_parameters():
        parts.setdefault(f"backbone stage {segmenter.backbone.stage_of(name)}", []).append(parameter)
    parts = dict(sorted(parts.items()))
    head = dict(segmenter.head.named_parameters())
    learner = [head.pop(name) for name in list(head) if name.startswith("learner_base.")]
    base_backbone = getattr(segmenter, "base_backbone", None)
    if base_backbone is not None:  # count only what it does not share with the tuned backbone
        shared = {id(p) for p in segmenter.backbone.parameters()}
        learner += [p for p in base_backbone.parameters() if id(p) not in shared]
    if learner:
        parts["base learner"] = learner
    parts["head"] = list(head.values())
    return [
        PartCount(part, sum(p.numel() for p in ps if p.requires_grad), sum(p.numel() for p in ps))
        for part, ps in parts.items()
    ]
