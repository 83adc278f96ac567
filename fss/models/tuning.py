"""Tunings: which parameters of a backbone are trained, chosen by stage, for any backbone.

Each function first freezes the whole backbone. Norms always keep their statistics; their parameters are trained
only by `bias` and `norm`, as in the published programs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import partial

from rich import get_console
from rich.progress import track
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from fss.models.backbones import Backbone
from fss.svf import (
    SVD,
    Bottleneck,
    LoRA,
    SVFConv2d,
    SVFLinear,
    decompose,
    exact_svd,
    put_beside,
    qkv_parts,
)
from fss.svf.beside import Beside
from fss.svf.values import FORMS, Trained

Tuning = Callable[[Backbone], None]
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


def frozen(backbone: Backbone) -> None:
    """Freezes the backbone."""
    backbone.requires_grad_(False)


def svf(
    backbone: Backbone,
    stages: Collection[int] = (2, 3, 4),
    train: Collection[str] = ("S",),
    split_qkv: bool = False,
    form: Trained = "S",
    svd: SVD = exact_svd,
) -> None:
    """Singular value fine-tuning: decomposes the layers of the given stages and trains their S.

    Args:
        backbone: The backbone, changed in place.
        stages: Stages to tune, from 0 to 4.
        train: Factors to train: S alone, or with U and V for the paper's ablation.
        split_qkv: Factor the query, key and value projections of a transformer on their own where one layer holds
            all three; otherwise its weight is one matrix.
        form: What is trained for S: "S" itself, "delta" in S = relu(S0 + delta), or "z" in S = S0 z.
        svd: See `decompose`.

    Raises:
        ValueError: If the stages contain no layer that can be decomposed, or if a factor or form is unknown.
    """
    frozen(backbone)
    _check(stages)
    if not train or not set(train) <= set("SUV"):
        raise ValueError(f"tuning.train={list(train)}: give one or more of the factors S, U and V")
    if form not in FORMS:
        raise ValueError(f"tuning.form={form!r}: must be one of {', '.join(FORMS)}")
    try:
        decompose(
            backbone,
            only=lambda name, _: backbone.stage_of(name) in stages,
            # takes seconds for a large network; a progress bar would clutter a log file
            progress=partial(
                track, description="Factoring weights", transient=True, disable=not get_console().is_terminal
            ),
            svd=svd,
            parts=qkv_parts if split_qkv else lambda name, layer: 1,
            trained=form,
        )
    except ValueError as error:
        raise ValueError(f"tuning.stages={sorted(stages)} of this backbone: {error}") from error
    for layer in backbone.modules():
        if isinstance(layer, SVFConv2d | SVFLinear):
            for factor in ("S", "U", "V"):
                layer.get_parameter(form if factor == "S" else factor).requires_grad_(factor in train)


def lora(backbone: Backbone, stages: Collection[int] = (2, 3, 4), rank: int = 4, alpha: float = 4.0) -> None:
    """Trains a low-rank change of the weights that `svf` would factor; see `LoRA`.

    Args:
        backbone: The backbone, changed in place.
        stages: Stages to tune, from 0 to 4.
        rank: Rank of each change; no more than the weight's own.
        alpha: Factor of the change, divided by the rank.

    Raises:
        ValueError: If the stages contain no such weight, or the rank or alpha is out of range.
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"tuning.alpha={alpha}: must be above 0, and finite")
    _put_beside(backbone, stages, "rank", rank, lambda layer: LoRA(layer, rank, alpha))


def adapter(backbone: Backbone, stages: Collection[int] = (2, 3, 4), width: int = 4) -> None:
    """Trains bottleneck adapters beside the layers that `svf` would factor; see `Bottleneck`.

    They are no linear maps, so that they stay in the network where other tunings leave a plain one.

    Args:
        backbone: The backbone, changed in place.
        stages: Stages to tune, from 0 to 4.
        width: Channels of each bottleneck; no more than the layer has.

    Raises:
        ValueError: If the stages contain no such layer, or the width is out of range.
    """
    _put_beside(backbone, stages, "width", width, lambda layer: Bottleneck(layer, width))


def _put_beside(
    backbone: Backbone,
    stages: Collection[int],
    setting: str,
    width: int,
    new: Callable[[nn.Linear | nn.Conv2d], Beside],
) -> None:
    frozen(backbone)
    _check(stages)
    if width < 1:
        raise ValueError(f"tuning.{setting}={width}: must be at least 1")
    try:
        put_beside(backbone, new, only=lambda name: backbone.stage_of(name) in stages)
    except ValueError as error:
        raise ValueError(f"tuning.stages={sorted(stages)} of this backbone: {error}") from error


def bias(backbone: Backbone, stages: Collection[int] = (2, 3, 4)) -> None:
    """Trains the biases of the given stages, including the shifts of norms.

    Raises:
        ValueError: If the stages contain no bias.
    """
    _train(backbone, stages, "bias", lambda _, name: name == "bias")


def norm(backbone: Backbone, stages: Collection[int] = (2, 3, 4)) -> None:
    """Trains the scale and shift of the norms of the given stages; their statistics stay fixed.

    Raises:
        ValueError: If the stages contain no norm.
    """
    _train(backbone, stages, "norm", lambda module, _: isinstance(module, NORMS))


def full(backbone: Backbone, stages: Collection[int] = (2, 3, 4)) -> None:
    """Trains all weights and biases of the given stages, except norms."""
    _train(backbone, stages, "full", lambda module, _: not isinstance(module, NORMS))


def _train(
    backbone: Backbone, stages: Collection[int], tuning: str, chosen: Callable[[nn.Module, str], bool]
) -> None:
    """Trains the parameters of the given stages for which `chosen(module, name in the module)` holds."""
    frozen(backbone)
    _check(stages)
    found = False
    for path, module in backbone.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if chosen(module, name) and backbone.stage_of(f"{path}.{name}".lstrip(".")) in stages:
                parameter.requires_grad_(True)
                found = True
    if not found:
        raise ValueError(
            f"tuning.stages={sorted(stages)} of this backbone contain nothing that tuning={tuning} trains"
        )


def _check(stages: Collection[int]) -> None:
    if not stages or not set(stages) <= set(range(5)):
        raise ValueError(f"tuning.stages={sorted(stages)}: give one or more stages from 0 to 4")
