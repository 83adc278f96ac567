"""Counts the parameters of each part of a model, and how many of them are trained."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from fss.models.backbones.backbone import NEVER_RUN
from fss.models.base_segmenter import BaseLearnerSegmenter
from fss.models.segmenter import FewShotSegmenter


class PartCount(NamedTuple):
    """Number of parameters of one part of a segmenter."""

    part: str
    trained: int
    all: int


def count_parameters(segmenter: FewShotSegmenter | BaseLearnerSegmenter) -> list[PartCount]:
    """Counts trained and all parameters of each backbone stage that has any, the base learner, and the head."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in segmenter.backbone.named_parameters():
        stage = segmenter.backbone.stage_of(name)
        part = "backbone, never run" if stage == NEVER_RUN else f"backbone stage {stage}"
        parts.setdefault(part, []).append(parameter)
    parts = dict(sorted(parts.items()))
    head = list(segmenter.head.parameters())
    if isinstance(segmenter, FewShotSegmenter):
        learner = _base_learner(segmenter)
        if learner:
            parts["base learner"] = learner
        theirs = {id(p) for p in learner}
        head = [p for p in head if id(p) not in theirs]
    parts["head"] = head
    return [
        PartCount(part, sum(p.numel() for p in ps if p.requires_grad), sum(p.numel() for p in ps))
        for part, ps in parts.items()
    ]


def _base_learner(segmenter: FewShotSegmenter) -> list[nn.Parameter]:
    """Parameters of a base learner that it does not share with the tuned backbone."""
    modules = [segmenter.head.get_submodule(part) for part in segmenter.head.base_learner_parts]
    modules += [segmenter.base_backbone] if segmenter.base_backbone is not None else []
    shared = {id(p) for p in segmenter.backbone.parameters()}
    return [p for module in modules for p in module.parameters() if id(p) not in shared]
