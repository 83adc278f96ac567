"""Loading a segmenter with its SVF layers as factors, without factoring anything."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from fss.models.backbones.weights import read_state_dict
from fss.models.segmenter import FewShotSegmenter
from fss.svf import SVFConv2d, SVFLinear, decompose, exact_svd

BACKBONE, BASE = "backbone.", "base_backbone."  # prefixes of the tuned backbone and of the base learner's own
_OURS = "segmenter."  # prefix of the model in a training checkpoint


def factored_layers(names: Iterable[str]) -> set[str]:
    """The factored layers among the entries of a segmenter's state dict, each with a dot at its end."""
    return {name.removesuffix("S0") for name in names if name.startswith(BACKBONE) and name.endswith(".S0")}


def load_factors(segmenter: FewShotSegmenter, state: Mapping[str, Tensor]) -> None:
    """Loads a whole state dict; layers with factors in it become SVF layers whose S is trained.

    Args:
        segmenter: Plain, with the method and backbone of the state dict.
        state: Also of a segmenter whose base learner has a backbone of its own.

    Raises:
        ValueError: A layer with factors cannot be factored.
        RuntimeError: Entries do not fit.
    """
    has_own = any(name.startswith(BASE) for name in state)
    segmenter.base_backbone = copy.deepcopy(segmenter.backbone) if has_own else None
    if layers := factored_layers(state):
        decompose(segmenter.backbone, only=lambda name, _: f"{BACKBONE}{name}." in layers, svd=_without_values)
    segmenter.load_state_dict(state)
    for layer in segmenter.backbone.modules():
        if isinstance(layer, SVFConv2d | SVFLinear):
            layer.svd = exact_svd
    for name, parameter in segmenter.backbone.named_parameters():
        parameter.requires_grad_(f"{BACKBONE}{name}".removesuffix("S") in layers)
    if segmenter.base_backbone is not None:
        segmenter.keep_for_base_learner(segmenter.base_backbone)  # what is equal in both is stored once


def load_factored_checkpoint(segmenter: FewShotSegmenter, file: str | Path) -> None:
    """Loads a training checkpoint of this program and keeps its factors; `load_checkpoint` merges them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such checkpoint, or holds no factors.
    """
    state = {n.removeprefix(_OURS): v for n, v in read_state_dict(file).items() if n.startswith(_OURS)}
    if not factored_layers(state):
        raise ValueError(f"{file} holds no factors: only a run with tuning=svf has any, leave factored out")
    try:
        load_factors(segmenter, state)
    except RuntimeError as error:
        raise ValueError(f"{file} does not fit the settings of its run: {error}") from error


def _without_values(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Factors of the right shapes; the state dict brings the values."""
    rows, *others = weight.shape
    rank = min(rows, math.prod(others))
    return tuple(torch.empty(*shape) for shape in ((rows, rank), (rank,), (rank, *others)))  # type: ignore[return-value]
