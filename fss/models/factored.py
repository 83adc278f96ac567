"""Loading a segmenter with its SVF layers as factors, without factoring anything."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fss.models.backbones import Backbone
from fss.models.backbones.weights import read_state_dict
from fss.models.segmenter import FewShotSegmenter
from fss.svf import (
    SVFConv2d,
    SVFLinear,
    bottlenecks_of,
    compose,
    decompose,
    exact_svd,
    put_bottlenecks,
    split_svd,
    with_values,
)
from fss.svf.adapter_file import AdapterFile
from fss.svf.digest import weights_digest

BACKBONE, BASE = "backbone.", "base_backbone."  # prefixes of the tuned backbone and of the base learner's own
_HEAD = "head."
OURS = "segmenter."  # prefix of the model in a training checkpoint


def factored_layers(names: Iterable[str]) -> set[str]:
    """The factored layers among the entries of a segmenter's state dict, each with a dot at its end."""
    return {name.removesuffix("S0") for name in names if name.startswith(BACKBONE) and name.endswith(".S0")}


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shape of each entry."""
    return {name: tuple(value.shape) for name, value in state.items()}


def parts_of(values: int, shape: Sequence[int]) -> int:
    """Of how many matrices on top of each other a weight with so many singular values was made; see `split_svd`.

    Args:
        values: Number of singular values in all.
        shape: Shape of the weight.

    Raises:
        ValueError: A weight of that shape cannot have as many.
    """
    rows, *others = shape
    columns = math.prod(others)
    parts = max(1, values // min(rows, columns))
    if rows % parts or values != parts * min(rows // parts, columns):
        raise ValueError(f"a weight of shape {tuple(shape)} does not have {values} singular values")
    return parts


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
    put_bottlenecks(segmenter.backbone, bottlenecks_of(shapes_of(state), BACKBONE))
    if layers := factored_layers(state):
        decompose(
            segmenter.backbone,
            only=lambda name, _: f"{BACKBONE}{name}." in layers,
            svd=_without_values,
            parts=lambda name, layer: parts_of(state[f"{BACKBONE}{name}.S0"].shape[0], layer.weight.shape),  # type: ignore[arg-type]
        )
    segmenter.load_state_dict(state)
    for layer in segmenter.backbone.modules():
        if isinstance(layer, SVFConv2d | SVFLinear):
            parts = parts_of(len(layer.S), layer.weight.shape)
            layer.svd = exact_svd if parts == 1 else split_svd(parts)
    for name, parameter in segmenter.backbone.named_parameters():
        parameter.requires_grad_(f"{BACKBONE}{name}".removesuffix("S") in layers)
    if segmenter.base_backbone is not None:
        segmenter.keep_for_base_learner(segmenter.base_backbone)  # what is equal in both is stored once


def _state_of(file: str | Path) -> dict[str, Tensor]:
    """The model's state dict in a training checkpoint; factored layers have their S, whatever was trained."""
    return with_values({n.removeprefix(OURS): v for n, v in read_state_dict(file).items() if n.startswith(OURS)})


def load_factored_checkpoint(segmenter: FewShotSegmenter, file: str | Path) -> None:
    """Loads a training checkpoint of this program and keeps its factors; `load_checkpoint` merges them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such checkpoint, or holds no factors.
    """
    state = _state_of(file)
    if not factored_layers(state):
        raise ValueError(f"{file} holds no factors: only a run with tuning=svf has any, leave factored out")
    try:
        load_factors(segmenter, state)
    except RuntimeError as error:
        raise ValueError(f"{file} does not fit the settings of its run: {error}") from error


def adapter_of(backbone: Backbone, file: str | Path, with_head: bool) -> AdapterFile:
    """What a training checkpoint of this program has made of a backbone, as an S-adapter.

    Args:
        backbone: Plain, with the weights that the training started from.
        file: The checkpoint.
        with_head: Whether the head is to be in it too.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such checkpoint, or more than S was trained, or on other weights.
    """
    state = _state_of(file)
    layers = sorted(stem.removeprefix(BACKBONE) for stem in factored_layers(state))
    if not layers:
        raise ValueError(f"{file} holds no factors: only a run with tuning=svf has an adapter")
    plain = backbone.state_dict()
    for name, value in plain.items():
        stem, _, leaf = name.rpartition(".")
        if f"{stem}." in layers and leaf == "weight":
            U, S0, V = (state[f"{BACKBONE}{stem}.{factor}"] for factor in ("U", "S0", "V"))
            same = torch.allclose(compose(U, S0, V), value, rtol=0, atol=1e-4 * float(value.abs().max()))
        else:
            same = torch.equal(state.get(BACKBONE + name, torch.empty(0)), value)
        if not same:
            raise ValueError(
                f"{name} of {file} is not what its run started from, or was trained besides S: an adapter holds S "
                "alone. Name the weights that it started from (weights=FILE), or write a model file"
            )
    sizes = {stem.rstrip("."): len(state[f"{BACKBONE}{stem}S"]) for stem in layers}
    head = {n.removeprefix(_HEAD): v for n, v in state.items() if n.startswith(_HEAD)} if with_head else {}
    S = torch.cat([state[f"{BACKBONE}{stem}S"] for stem in layers])
    return AdapterFile(weights_digest(plain), sizes, S, head)


def _without_values(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Factors of the right shapes; the state dict brings the values."""
    rows, *others = weight.shape
    rank = min(rows, math.prod(others))
    return tuple(torch.empty(*shape) for shape in ((rows, rank), (rank,), (rank, *others)))  # type: ignore[return-value]
