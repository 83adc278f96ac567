"""Reading checkpoints of this program and of the published ones, and writing them in the published format.

A published file holds `{"state_dict": {...}}`. For PFENet, BAM and the baseline, `layer0` to `layer4` are the
backbone and all other names belong to the head; for a base learner (BAM, stage 1), `ppm` and `cls` are the head,
and `encoder` repeats the backbone. A convolution factored by the SVF program is stored as `conv_U`, `vector_S`,
`conv_V`. Checkpoints of this program use the same names with the prefixes `segmenter.backbone.` and
`segmenter.head.`. The published BAM has a single backbone; if the base learner's differs from the tuned one, it is
written as `base_layer0` to `base_layer4`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fss.files.whole import whole
from fss.models.backbones import LayeredBackbone
from fss.models.backbones.weights import load_strictly, read_state_dict
from fss.models.base_segmenter import GAIN, BaseLearnerSegmenter
from fss.models.factored import BACKBONE, BASE, OURS, shapes_of
from fss.models.heads import PSPHead
from fss.models.segmenter import FewShotSegmenter
from fss.svf import bottlenecks_of, compose, plain_state_dict, put_bottlenecks, with_values

_PSP_HEAD = {"ppm.": "head.0.", "cls.": "head.1."}  # published -> ours


def load_checkpoint(segmenter: FewShotSegmenter, file: str | Path) -> None:
    """Loads a checkpoint of this program (merging SVF layers) or of a published one.

    Args:
        segmenter: A segmenter with the checkpoint's method and backbone, not decomposed.
        file: The checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint, or if entries do not fit; they are listed.
    """
    _load(segmenter, _ours(read_state_dict(file)), str(file))


def load_published(
    segmenter: FewShotSegmenter, state: Mapping[str, Tensor], source: str = "the state dict"
) -> None:
    """Loads a published checkpoint's state dict into a segmenter of the same method and backbone.

    Args:
        segmenter: May be decomposed, in which case plain weights are decomposed while loading.
        state: The state dict, with or without `module.` prefixes.
        source: How error messages refer to it.

    Raises:
        ValueError: If entries do not fit; they are listed.
    """
    _load(segmenter, _ours({name.removeprefix("module."): value for name, value in state.items()}), source)


def load_base_learner(segmenter: FewShotSegmenter | BaseLearnerSegmenter, file: str | Path) -> None:
    """Loads the backbone and head of a base learner, saved by this program or a published one.

    For stage 2 (a `FewShotSegmenter`), call it before the backbone is tuned.

    Args:
        segmenter: The segmenter to fill.
        file: The base learner's checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a base learner's checkpoint, or if entries do not fit; they are listed.
    """
    ours = {GAIN: torch.tensor(1.0), **_ours(read_state_dict(file))}
    if not any(name.startswith("head.0.features.") for name in ours):
        raise ValueError(f"{file} is not a base learner's checkpoint: train one with python train.py method=base")
    if isinstance(segmenter, BaseLearnerSegmenter):
        load_strictly(segmenter, ours, str(file))
        return
    (part,) = segmenter.head.base_learner_parts
    head = segmenter.head.get_submodule(part)
    assert isinstance(head, PSPHead)
    base = BaseLearnerSegmenter(segmenter.backbone, head)
    load_strictly(base, ours, str(file))
    head.take_in(base.gain)


def published_state_dict(
    segmenter: FewShotSegmenter | BaseLearnerSegmenter, factored: bool = False
) -> dict[str, Tensor]:
    """Returns a segmenter's state dict under the published names.

    Args:
        segmenter: A segmenter with a ResNet or VGG backbone.
        factored: Keep SVF layers factored, as the published SVF program does; otherwise they are merged into
            plain weights.

    Raises:
        ValueError: If the published programs have no such backbone, or no adapters in it.
    """
    if not isinstance(segmenter.backbone, LayeredBackbone):
        raise ValueError(
            f"a {type(segmenter.backbone).__name__} cannot be written for the published programs, which only "
            "know ResNet and VGG"
        )
    if is_base_learner := isinstance(segmenter, BaseLearnerSegmenter):
        segmenter = segmenter.without_gain()
    state: dict[str, Tensor] = segmenter.state_dict()
    state.pop(GAIN, None)
    if bottlenecks_of(shapes_of(state)):
        raise ValueError("bottleneck adapters (tuning=adapter) cannot be written for the published programs")
    state = _published_factors(with_values(state)) if factored else plain_state_dict(state)
    published: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith(BASE):
            published[f"base_{name.removeprefix(BASE)}"] = value
        elif is_base_learner and name.startswith("head."):
            theirs = {ours: theirs for theirs, ours in _PSP_HEAD.items()}[name[:7]]
            published[theirs + name[7:]] = value
        else:
            published[name.partition(".")[2]] = value
        if is_base_learner and name.startswith("backbone.layer"):
            published[f"encoder.{name.removeprefix('backbone.layer')}"] = value
    return published


def save_published(
    segmenter: FewShotSegmenter | BaseLearnerSegmenter, file: str | Path, factored: bool = False
) -> None:
    """Atomically writes a checkpoint for the published programs; see `published_state_dict`."""
    state = published_state_dict(segmenter, factored)
    with whole(Path(file)) as unfinished:
        torch.save({"epoch": 0, "state_dict": state}, unfinished)


def _load(segmenter: FewShotSegmenter, ours: Mapping[str, Tensor], source: str) -> None:
    unused = tuple(f"head.{part}." for part in segmenter.head.unused_parts)
    ours = {name: value for name, value in ours.items() if not name.startswith(unused)}
    own_backbone = any(name.startswith(BASE) for name in ours)
    before = segmenter.base_backbone
    # separate while loading: a parameter shared by both cannot take two values
    segmenter.base_backbone = copy.deepcopy(segmenter.backbone) if own_backbone else None
    put_bottlenecks(segmenter.backbone, bottlenecks_of(shapes_of(ours), BACKBONE))
    try:
        load_strictly(segmenter, ours, source)
    except ValueError:
        segmenter.base_backbone = before
        raise
    if segmenter.base_backbone is not None:
        segmenter.backbone.requires_grad_(False)  # until a tuning decides, so that equal parts are stored once
        segmenter.keep_for_base_learner(segmenter.base_backbone)


def _ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a state dict of either program to this program's names and merges SVF layers."""
    if any(name.startswith(OURS) for name in state):
        mine = {name.removeprefix(OURS): value for name, value in state.items() if name.startswith(OURS)}
        return plain_state_dict(mine)
    is_base_learner = any(name.startswith("ppm.") for name in state)
    ours: dict[str, Tensor] = {}
    for name, value in _compose_published_factors(state).items():
        part = name[:4]
        if name.startswith("layer"):
            ours[f"backbone.{name}"] = value
        elif name.startswith("base_layer"):
            ours[BASE + name.removeprefix("base_")] = value
        elif is_base_learner and part in _PSP_HEAD:
            ours[_PSP_HEAD[part] + name.removeprefix(part)] = value
        elif not (is_base_learner and name.startswith("encoder.")):
            ours[f"head.{name}"] = value
    return ours


def _compose_published_factors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Composes each conv_U, vector_S, conv_V into one weight; published ranks may be less than full."""
    stems = {name.removesuffix("vector_S") for name in state if name.endswith(".vector_S")}
    plain: dict[str, Tensor] = {}
    for name, value in state.items():
        stem, factor, leaf = name.rpartition("conv_U.")
        if factor and stem in stems:
            if leaf == "bias":
                plain[f"{stem}bias"] = value
            else:
                S, V = state[f"{stem}vector_S"], state[f"{stem}conv_V.weight"]
                plain[f"{stem}weight"] = compose(value.flatten(1), S.flatten(), V)
        elif not any(name == f"{stem}{part}" for stem in stems for part in ("vector_S", "conv_V.weight")):
            plain[name] = value
    return plain


def _published_factors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames U, S, V of SVF layers to conv_U, vector_S, conv_V and gives them the shapes of convolutions."""
    factored: dict[str, Tensor] = {}
    for name, value in state.items():
        stem, _, leaf = name.rpartition(".")
        if f"{stem}.S0" not in state:
            factored[name] = value
        elif leaf == "U":
            factored[f"{stem}.conv_U.weight"] = value[..., None, None]
        elif leaf == "bias":
            factored[f"{stem}.conv_U.bias"] = value
        elif leaf == "S":
            factored[f"{stem}.vector_S"] = value[None, :, None, None]
        elif leaf == "V":
            factored[f"{stem}.conv_V.weight"] = value
    return factored
