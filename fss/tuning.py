"""What of a backbone is trained: declared by stage, applied to any backbone.

Each function freezes the whole backbone first. Norms stay frozen in all of them, as in the published programs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple

from rich import get_console
from rich.progress import track
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from fss.backbones import Backbone
from fss.segmenter import FewShotSegmenter
from fss.svf import decompose

Tuning = Callable[[Backbone], None]


def frozen(backbone: Backbone) -> None:
    """Trains nothing of the backbone."""
    backbone.requires_grad_(False)


def svf(backbone: Backbone, stages: Collection[int] = (2, 3, 4)) -> None:
    """Singular value fine-tuning: factors the layers of some stages and trains their S alone.

    Raises:
        ValueError: The stages hold no layer that can be decomposed.
    """
    frozen(backbone)
    _check(stages)
    try:
        decompose(
            backbone,
            only=lambda name, _: backbone.stage_of(name) in stages,
            # seconds for a large network; a bar in a log file is noise
            progress=partial(
                track, description="Factoring weights", transient=True, disable=not get_console().is_terminal
            ),
        )
    except ValueError as error:
        raise ValueError(f"tuning.stages={sorted(stages)} of this backbone: {error}") from error


def full(backbone: Backbone, stages: Collection[int] = (2, 3, 4)) -> None:
    """Trains every weight and bias of some stages, norms excepted."""
    frozen(backbone)
    _check(stages)
    for path, module in backbone.named_modules():
        if not isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm):
            for name, parameter in module.named_parameters(prefix=path, recurse=False):
                parameter.requires_grad_(backbone.stage_of(name) in stages)


def _check(stages: Collection[int]) -> None:
    if not stages or not set(stages) <= set(range(5)):
        raise ValueError(f"tuning.stages={sorted(stages)}: name stages of 0 to 4, at least one")


class PartCount(NamedTuple):
    """Parameters of one part of a segmenter."""

    part: str
    trained: int
    all: int


def count_parameters(segmenter: FewShotSegmenter) -> list[PartCount]:
    """Trained and all parameters of each backbone stage that has any, and of the head."""
    stages: dict[int, list[nn.Parameter]] = {}
    for name, parameter in segmenter.backbone.named_parameters():
        stages.setdefault(segmenter.backbone.stage_of(name), []).append(parameter)
    parts = {f"backbone stage {stage}": stages[stage] for stage in sorted(stages)}
    parts["head"] = list(segmenter.head.parameters())
    return [
        PartCount(part, sum(p.numel() for p in ps if p.requires_grad), sum(p.numel() for p in ps))
        for part, ps in parts.items()
    ]
